element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-label]");
  if (button) trigger("click", { label: Number(button.dataset.label) });
});
