// The table of models: a click on a name shows its card.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-name]');
  if (!button) return;
  for (const other of element.querySelectorAll('button[data-name]'))
    other.setAttribute('aria-pressed', String(other === button));
  trigger('click', {name: button.dataset.name});
});
