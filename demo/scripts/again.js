// Images to look at again: a click on the button says that an answer stands.
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-task]');
  if (button) trigger('click', {task: button.dataset.task});
});
