// Saves a plot as a file of its own, which needs its styles and the colours of the theme that is on.
const colours = getComputedStyle(document.documentElement);
const names = ['--ink', '--soft', '--line', '--grid', '--card', '--good', '--bad', '--c0', '--c1', '--c2', '--c3', '--c4', '--c5'];
document.querySelectorAll('button[data-save]').forEach(button => {
  button.hidden = false;
  button.addEventListener('click', () => {
    const shown = Array.from(button.closest('figure').querySelectorAll('svg.plot'));
    const plot = shown.find(svg => svg.getBoundingClientRect().width !== 0);
    const copy = plot.cloneNode(true);
    const [, , width, height] = copy.getAttribute('viewBox').split(' ');
    copy.setAttribute('width', width);
    copy.setAttribute('height', height);
    const style = document.createElementNS(copy.namespaceURI, 'style');
    const own = names.map(name => name + ':' + colours.getPropertyValue(name)).join(';');
    style.textContent = 'svg{' + own + ';background:var(--card)}' + document.getElementById('plot-style').textContent;
    copy.insertBefore(style, copy.firstChild);
    const file = new Blob([new XMLSerializer().serializeToString(copy)], {type: 'image/svg+xml'});
    const link = document.createElement('a');
    link.href = URL.createObjectURL(file);
    link.download = button.dataset.save;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
});
