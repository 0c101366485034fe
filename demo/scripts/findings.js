// The findings table: a click or Space selects a row, arrows go through them.
// `element` and `trigger` come from the page.
element.addEventListener('click', (event) => {
  const row = event.target.closest('tr[data-number]');
  if (!row) return;
  const was = row.classList.contains('is-selected');
  for (const other of element.querySelectorAll('tr[data-number]')) {
    const is = other === row && !was;
    other.classList.toggle('is-selected', is);
    other.querySelector('.pick').setAttribute('aria-pressed', String(is));
  }
  trigger('click', {number: was ? 0 : Number(row.dataset.number)});
});
element.addEventListener('keydown', (event) => {
  const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
  if (!step || !event.target.matches('.pick')) return;
  const picks = [...element.querySelectorAll('.pick')];
  picks[picks.indexOf(event.target) + step]?.focus();
  event.preventDefault();
});
