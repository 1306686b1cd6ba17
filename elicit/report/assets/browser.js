// The browser of samples: a list of which only what is in view is in the page, and the chosen answer with its branches.
// What it reads is packed by elicit/report/browser.py; a text is only ever put into the page as text.
(async () => {
  const $ = (id) => document.getElementById(id);
  // As probes.inert: what would reorder or hide the text around it is written out.
  const CONTROL =
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb]|\p{Surrogate}/gu;
  const hex = (code) => (code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`);
  const inert = (text) => text.replace(CONTROL, (one) => hex(one.charCodeAt(0)));
  const ROW = 56; // 3.5rem
  const MEASURES = {
    margin: { low: 'sure', high: 'in doubt', tint: '243 150 80' },
    entropy: { low: 'low', high: 'high', tint: '243 150 80' },
    logprob: { low: 'likely', high: 'unlikely', tint: '243 150 80' },
    moved: { low: 'not moved', high: 'moved far', tint: '90 150 230' },
  };

  async function opened(id) {
    const packed = Uint8Array.from(atob($(id).textContent), (one) => one.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip')));
  }

  const index = await (await opened('b-index')).json();
  const [TEXT, ANSWER, RIGHT, FINISH, DROPPED, DELTA, SPENT, NUMBER, COUNT, FIRST, LAST, GREEDY, ZERO] = [...Array(13).keys()];
  const WIDTH = index.steered ? 6 : 5; // bytes a token
  let at = 0;
  const places = index.samples.map((sample) => (at += sample[COUNT] * WIDTH) - sample[COUNT] * WIDTH);
  let numbers = null; // all of them, opened with the first answer that is looked at
  const groups = index.groups.map(([arm, item, right, first, count], id) => ({ id, arm, item, right, first, count }));
  const samplesOf = (group) => index.samples.slice(group.first, group.first + group.count);

  // The list.
  const list = $('b-list');
  const space = list.firstElementChild;
  let shown = groups;
  let chosen = null;
  let branch = 0;

  function option(group, n) {
    const box = document.createElement('div');
    box.id = `b-option-${group.id}`;
    box.role = 'option';
    box.style.top = `${n * ROW}px`;
    box.ariaSelected = String(group === chosen);
    box.setAttribute('aria-setsize', shown.length);
    box.setAttribute('aria-posinset', n + 1);
    const [head, tail] = [document.createElement('span'), document.createElement('span')];
    const item = index.items[group.item];
    head.textContent = inert(`${group.right ? '✓ right' : '✗ wrong'} · ${index.arms[group.arm]}`);
    tail.textContent = inert(item.question || item.id);
    box.append(head, tail);
    box.addEventListener('click', () => choose(group));
    return box;
  }

  function draw() {
    const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const to = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
    space.style.height = `${shown.length * ROW}px`;
    space.replaceChildren(...shown.slice(from, to).map((group, n) => option(group, from + n)));
    const active = chosen && $(`b-option-${chosen.id}`);
    if (active) list.setAttribute('aria-activedescendant', active.id);
    else list.removeAttribute('aria-activedescendant');
  }

  const lowered = new Map();
  function textOf(group) {
    if (!lowered.has(group.id)) {
      const item = index.items[group.item];
      lowered.set(group.id, [item.id, item.question, ...samplesOf(group).map((s) => s[TEXT])].join('\n').toLowerCase());
    }
    return lowered.get(group.id);
  }

  function filter() {
    const text = $('b-text').value.trim().toLowerCase();
    const answer = $('b-answer').value.trim().toLowerCase();
    const arm = $('b-arm').value;
    const right = $('b-right').value;
    shown = groups.filter(
      (group) =>
        (arm === '' || group.arm === Number(arm)) &&
        (right === '' || group.right === Number(right)) &&
        (!answer || samplesOf(group).some((s) => s[ANSWER]?.toLowerCase() === answer)) &&
        (!text || textOf(group).includes(text)),
    );
    const wins = shown.reduce((sum, group) => sum + group.right, 0);
    $('b-count').textContent = `${shown.length} of ${groups.length} answers; ${wins} right`;
    list.scrollTop = 0;
    draw();
  }

  // The chosen answer.
  const make = (tag, text, name) => {
    const one = document.createElement(tag);
    one.textContent = inert(text ?? '');
    if (name) one.className = name;
    return one;
  };

  const verdictOf = (right) => make('strong', right ? '✓ right' : '✗ wrong', right ? 'right' : 'wrong');

  async function choose(group, number = 0, moves = true) {
    chosen = group;
    branch = Math.min(number, group.count - 1);
    const n = shown.indexOf(group);
    if (n >= 0) {
      const top = n * ROW;
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    }
    draw();
    const item = index.items[group.item];
    if (moves) history.replaceState(null, '', `#${linkOf(group, branch)}`);
    const head = make('h3', `${index.arms[group.arm]}, ${item.id}`);
    head.tabIndex = -1;
    const about = make('p', '', 'facts');
    if (item.gold !== null) about.append(inert(`gold ${item.gold}`), group.count > 1 ? '; ' : '');
    if (group.count > 1) about.append(`of ${group.count} branches the arm's choice is `, verdictOf(group.right));
    const parts = [head, make('p', item.question || '(this run kept no questions)', 'question'), about];
    if (group.count > 1) parts.push(tabs(group));
    const panel = make('div');
    if (group.count > 1) Object.assign(panel, { id: 'b-panel', role: 'tabpanel', ariaLabel: 'branch', tabIndex: 0 });
    parts.push(panel);
    const others = groups.filter((other) => other.item === group.item);
    if (others.length > 1) {
      const row = make('div', '', 'others');
      row.role = 'group';
      row.ariaLabel = 'This question in each arm';
      for (const other of others) {
        const button = make('button', `${other.right ? '✓' : '✗'} ${index.arms[other.arm]}`);
        button.type = 'button';
        button.ariaPressed = String(other === group);
        button.addEventListener('click', () => choose(other));
        row.append(button);
      }
      parts.push(make('h4', 'This question in each arm'), row);
    }
    $('b-one').replaceChildren(...parts);
    await fill(panel);
  }

  function tabs(group) {
    const row = make('div');
    row.role = 'tablist';
    row.ariaLabel = 'Branches';
    samplesOf(group).forEach((sample, n) => {
      const tab = make('button', `${sample[RIGHT] ? '✓' : '✗'} ${sample[NUMBER]}`);
      Object.assign(tab, { type: 'button', role: 'tab', ariaSelected: String(n === branch), tabIndex: n === branch ? 0 : -1 });
      tab.setAttribute('aria-controls', 'b-panel');
      tab.addEventListener('click', () => turn(n));
      row.append(tab);
    });
    row.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      turn((branch + step + group.count) % group.count);
    });
    return row;
  }

  async function turn(n) {
    branch = n;
    [...$('b-one').querySelectorAll('[role=tab]')].forEach((tab, i) => {
      tab.ariaSelected = String(i === n);
      tab.tabIndex = i === n ? 0 : -1;
      if (i === n) tab.focus();
    });
    history.replaceState(null, '', `#${linkOf(chosen, n)}`);
    await fill($('b-panel'));
  }

  async function fill(panel) {
    const [group, number] = [chosen, branch];
    numbers ??= opened('b-numbers').then(async (all) => new Uint8Array(await all.arrayBuffer()));
    const bytes = await numbers;
    if (group !== chosen || number !== branch) return; // another was chosen meanwhile
    const sample = index.samples[group.first + number];
    const name = $('b-measure').value;
    const measure = MEASURES[name];
    const facts = make('p', '', 'facts');
    facts.append(
      verdictOf(sample[RIGHT]),
      inert(`, answer ${sample[ANSWER] ?? '(none)'}`),
      `, ${sample[SPENT]} tokens, ended by ${index.finishes[sample[FINISH]]}` +
        (sample[DELTA] === null ? '' : `, Δ ${sample[DELTA].toFixed(3)}`) +
        (sample[GREEDY] === null
          ? ''
          : ` (the first token with the greedy one's margin ${sample[GREEDY].toFixed(3)}, with 0 ${sample[ZERO].toFixed(3)})`) +
        (sample[DROPPED] ? `, not selectable: ${sample[DROPPED]}` : ''),
    );
    const text = make('div', '', 'text');
    panel.style.setProperty('--tint', measure.tint);
    const read = make('p', 'Point at a token for its numbers.', 'read');
    const tokens = tokensOf(bytes, places[group.first + number], sample);
    for (const token of tokens) {
      const span = make('span', token.text);
      span.style.setProperty('--v', token.colour[name].toFixed(3));
      if (token.n >= sample[FIRST] && token.n < sample[LAST]) span.className = 'answer';
      span.token = token;
      text.append(span);
    }
    const tell = (event) => {
      const token = event.target.token;
      if (!token) return;
      text.querySelector('.at')?.classList.remove('at');
      event.target.classList.add('at');
      read.textContent =
        `token ${token.n} ${inert(JSON.stringify(token.text))}: margin ${token.margin.toFixed(2)}, ` +
        `entropy ${token.entropy.toFixed(2)} nats, log p ${(-token.logprob).toFixed(2)}` +
        (index.steered ? `, moved ${token.moved.toFixed(2)} of its norm` : '');
    };
    text.addEventListener('pointerover', tell);
    text.addEventListener('click', tell);
    const scale = make('p', '', 'facts');
    scale.append(measure.low, make('span', '', 'scale'), `${measure.high}; the answer is underlined`);
    panel.replaceChildren(facts, text, scale, read);
  }

  function tokensOf(bytes, place, sample) {
    const count = sample[COUNT];
    const column = (k, n) => bytes[place + count * (2 + k) + n];
    const rooted = (k, n, top) => (column(k, n) / 255) ** 2 * top;
    let start = 0;
    return Array.from({ length: count }, (_, n) => {
      const length = bytes[place + 2 * n] + 256 * bytes[place + 2 * n + 1];
      const text = sample[TEXT].slice(start, (start += length));
      const margin = (column(0, n) / 255) * 2 - 1;
      const token = { n, text, margin, entropy: rooted(1, n, index.tops.entropy), logprob: rooted(2, n, index.tops.logprob) };
      token.moved = index.steered ? rooted(3, n, index.tops.moved) : 0;
      token.colour = {
        margin: Math.min(1, 1 - margin),
        entropy: column(1, n) / 255,
        logprob: column(2, n) / 255,
        moved: index.steered ? column(3, n) / 255 : 0,
      };
      return token;
    });
  }

  // Links, keys, and the beginning.
  const linkOf = (group, n) =>
    `sample=${encodeURIComponent(index.arms[group.arm])}/${encodeURIComponent(index.items[group.item].id)}/${n}`;

  function follow() {
    if (!location.hash.startsWith('#sample=')) return false;
    const [arm, item, n] = location.hash.slice(8).split('/').map(decodeURIComponent);
    const group = groups.find((one) => index.arms[one.arm] === arm && index.items[one.item].id === item);
    if (!group) return false;
    choose(group, Number(n) || 0, false).then(() => $('browser').scrollIntoView());
    return true;
  }

  let frame = 0;
  list.addEventListener('scroll', () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(draw);
  });
  list.addEventListener('keydown', (event) => {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const here = shown.indexOf(chosen);
    const to = {
      ArrowDown: here + 1, ArrowUp: here - 1, PageDown: here + page, PageUp: here - page, Home: 0, End: shown.length - 1,
    }[event.key];
    if (event.key === 'Enter') $('b-one').querySelector('h3')?.focus();
    if (to === undefined || !shown.length) return;
    event.preventDefault();
    choose(shown[Math.min(shown.length - 1, Math.max(0, to))]);
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.target.closest('input, select, textarea')) return;
    event.preventDefault();
    $('b-text').focus();
  });
  let waiting = 0;
  for (const id of ['b-text', 'b-answer']) {
    $(id).addEventListener('input', () => {
      clearTimeout(waiting);
      waiting = setTimeout(filter, 120);
    });
  }
  for (const id of ['b-arm', 'b-right']) $(id).addEventListener('change', filter);
  $('b-measure').addEventListener('change', () => chosen && choose(chosen, branch, false));
  $('browser').querySelector('form').addEventListener('submit', (event) => event.preventDefault());
  addEventListener('hashchange', follow);
  addEventListener('resize', draw);
  filter();
  if (!follow() && groups.length) choose(groups[0], 0, false);
  $('browser').dataset.ready = 'yes';
})();
