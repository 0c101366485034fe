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
