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

  const chooser = () => {
    const panel = visible(".picture");
    return panel?.querySelector("input[type=file]");
  };

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
      chooser()?.click();
    } else if (event.key === "Escape" && !dialog?.open) {
      visible(".findings tr.is-selected .pick")?.click();
    }
  });

  document.addEventListener("paste", (event) => {
    const files = event.clipboardData?.files ?? [];
    const picture = [...files].find((file) => file.type.startsWith("image/"));
    const input = chooser();
    if (!picture || !input || isTyping(event.target)) return;
    const transfer = new DataTransfer();
    transfer.items.add(picture);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("#show-keys")) document.getElementById("keys")?.showModal();
  });
})();
