// Runs once for the component; `element` is its root and stays, while its content follows the server's answers.
let ids = null; // segment id of every pixel of the image, row by row
let shown = 0; // id that is highlighted

async function read() {
  ids = null;
  shown = 0;
  const figure = element.querySelector(".viewer");
  if (!figure) return;
  const text = figure.dataset.ids;
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const unpacked = new Uint16Array(await new Response(stream).arrayBuffer());
  if (figure.dataset.ids === text) ids = unpacked; // or another answer has come meanwhile
}

function highlight(figure, id) {
  const canvas = figure.querySelector("canvas");
  const [width, height] = [Number(figure.dataset.width), Number(figure.dataset.height)];
  canvas.width = width; // also clears it
  canvas.height = height;
  if (!id) return;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const colors = new Uint32Array(pixels.data.buffer);
  for (let i = 0; i < ids.length; i++) if (ids[i] === id) colors[i] = 0x66ffffff;
  context.putImageData(pixels, 0, 0);
}

function point(event) {
  const figure = element.querySelector(".viewer");
  if (!figure || !ids) return;
  const tip = figure.querySelector(".tip");
  const box = figure.querySelector("img").getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const inside = x >= 0 && y >= 0 && x < box.width && y < box.height;
  const column = Math.floor((x / box.width) * figure.dataset.width);
  const row = Math.floor((y / box.height) * figure.dataset.height);
  const id = inside ? ids[row * figure.dataset.width + column] : 0;
  if (id !== shown) {
    shown = id;
    highlight(figure, id);
    tip.hidden = !id;
    const words = id ? JSON.parse(figure.dataset.segments)[id] : ["", ""];
    const [name, details] = [document.createElement("strong"), document.createElement("span")];
    name.textContent = words[0]; // as text: names are not HTML
    details.textContent = words[1];
    tip.replaceChildren(name, details);
  }
  // Beside the pointer, on the side where there is room.
  tip.style.left = `${Math.max(0, Math.min(x + 14, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${y > box.height / 2 ? y - tip.offsetHeight - 10 : y + 18}px`;
}

element.addEventListener("pointermove", point);
element.addEventListener("pointerdown", point); // a finger's tap
element.addEventListener("pointerleave", point);
watch("value", read);
read();
