// What a page renews under the reader's hands keeps the keyboard's focus. What is written anew is
// removed first, and the browser then gives the focus to nobody; what is changed in place may say
// something else from then on, as every row of a list that got one more on top. In both cases the
// focus goes to what now is what had it.
(() => {
  let held = null;
  const named = (element) =>
    [
      element.tagName,
      element.id,
      JSON.stringify(element.dataset),
      element.getAttribute("href") ?? "",
      // Only where nothing else tells it apart: a text may count something that goes on.
      element.id || Object.keys(element.dataset).length || element.hasAttribute("href")
        ? ""
        : element.textContent.trim(),
    ].join("|");
  const alike = (block, name, tag) =>
    [...block.querySelectorAll(tag)].filter((element) => named(element) === name);

  const hold = (element) => {
    const name = named(element);
    const places = [];
    for (let at = element.parentElement; at; at = at.parentElement)
      if (at.id) places.push({id: at.id, nth: alike(at, name, element.tagName).indexOf(element)});
    held = {element, name, places};
  };
  document.addEventListener("focusin", ({target}) => hold(target));
  // A person who clicks, or moves on with the keyboard, is somewhere else on purpose.
  document.addEventListener("pointerdown", () => { held = null; });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Tab" && document.activeElement === document.body) held = null;
  });

  const follow = () => {
    if (!held) return;
    const has = document.activeElement;
    const isGone = !held.element.isConnected && has === document.body;
    const isAnother = has === held.element && named(has) !== held.name;
    if (!isGone && !isAnother) return;
    const place = held.places.find(({id}) => document.getElementById(id));
    const block = place && document.getElementById(place.id);
    const again = block && alike(block, held.name, held.element.tagName)[place.nth];
    if (again) again.focus({preventScroll: true}); // and is held from now on
    else if (isAnother) hold(has);
  };
  new MutationObserver(follow).observe(document, {
    childList: true,
    subtree: true,
    attributeFilter: ["data-id", "data-place", "data-name", "href"],
  });
})();
