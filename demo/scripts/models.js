// The table of models: a click on a name shows its card, and brings it into view.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-name]');
  if (!button) return;
  for (const other of element.querySelectorAll('button[data-name]'))
    other.setAttribute('aria-pressed', String(other === button));
  trigger('click', {name: button.dataset.name});
  const card = document.querySelector('#models-card');
  const isBelow = card && card.getBoundingClientRect().top > innerHeight / 2;
  if (isBelow) card.scrollIntoView({behavior: 'smooth', block: 'start'});
});
// Tables of a card that a narrow screen cuts off are scrolled by whoever has but a keyboard, too.
const reach = () => {
  for (const table of document.querySelectorAll('#models-card table'))
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
    else table.removeAttribute('tabindex');
};
new MutationObserver(reach).observe(document.body, {childList: true, subtree: true});
window.addEventListener('resize', reach);
