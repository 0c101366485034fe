// Where images are: a click on a number lists those images.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-place]');
  if (!button) return;
  for (const other of element.querySelectorAll('button[data-place]'))
    other.setAttribute('aria-pressed', String(other === button));
  trigger('click', {place: button.dataset.place});
});
