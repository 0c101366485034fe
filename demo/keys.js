// Keys of the whole page: Enter runs, ? shows the keys, O opens a picture, Escape lets go.
(() => {
  const visible = (selector) =>
    [...document.querySelectorAll(selector)].find((found) => found.offsetParent !== null);
  // Keys belong to whoever is typing, and to buttons and links that have the focus.
  const isTaken = (target) =>
    target.isContentEditable ||
    ["INPUT", "TEXTAREA", "SELECT", "BUTTON", "A", "SUMMARY"].includes(target.tagName);
  const isTyping = (target) =>
    target.isContentEditable ||
    target.tagName === "TEXTAREA" ||
    (target.tagName === "INPUT" && !["radio", "checkbox", "range", "file"].includes(target.type));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const dialog = document.getElementById("keys");
    if (event.key === "?" && !isTyping(event.target)) {
      if (dialog?.open) dialog.close();
      else dialog?.showModal();
      event.preventDefault();
    } else if (event.key === "Enter" && !isTaken(event.target) && !dialog?.open) {
      visible("button.runs")?.click();
    } else if (event.key.toLowerCase() === "o" && !isTyping(event.target) && !dialog?.open) {
      visible(".picture input[type=file]:not([disabled])")?.click() ??
        document.querySelector(".picture input[type=file]")?.click();
    } else if (event.key === "Escape") {
      visible(".findings tr.is-selected .pick")?.click();
    }
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#show-keys")) document.getElementById("keys")?.showModal();
  });
})();
