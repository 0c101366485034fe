// The row of samples: a click takes one.
element.addEventListener('click', (event) => {
  const sample = event.target.closest('.sample');
  if (sample) trigger('click', {index: Number(sample.dataset.index)});
});
