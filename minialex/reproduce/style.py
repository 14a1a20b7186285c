"""How the page of results looks: on a screen, in the dark, on a telephone, on paper."""

STYLE = """
:root { --ink: #1b1b1b; --soft: #5c5c5c; --line: #d9d6cf; --paper: #fffefb; --tint: #f4f1ea;
  --blue: #0072b2; --red: #b8480a; --green: #00734f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e1; --soft: #a8a59e; --line: #45433e; --paper: #191816; --tint: #24221f;
    --blue: #6db8e8; --red: #f09a5e; --green: #4fc79f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 Charter, "Bitstream Charter", "Iowan Old Style", Georgia, serif;
  font-variant-numeric: tabular-nums; overflow-wrap: break-word; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.3rem; margin: 0; line-height: 1.25; }
p { max-width: 42rem; margin: .6rem 0; }
a { color: var(--blue); }
code { font: .86em ui-monospace, Menlo, Consolas, monospace; }
.soft { color: var(--soft); }
.small { font-size: .88rem; }
.counts { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; margin: 1.6rem 0; list-style: none; }
.counts li { flex: 1 1 9rem; padding: .7rem .9rem; background: var(--tint); border-radius: .4rem;
  font-size: .82rem; line-height: 1.35; color: var(--soft); }
.counts b { display: block; font-size: 1.7rem; line-height: 1.1; color: var(--ink); }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; color: var(--soft); font-size: .85rem; padding-bottom: .3rem; }
th, td { text-align: left; padding: .32rem .7rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--ink); white-space: nowrap; }
td.n, th.n { text-align: right; }
tbody th { font-weight: 400; min-width: 11rem; }
.supported { color: var(--green); }
.contradicted { color: var(--red); }
.inconclusive, .not-run { color: var(--soft); }
section { margin-top: 3rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
figure { margin: 1.2rem 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .3rem; }
figcaption { font-size: .85rem; color: var(--soft); }
svg { display: block; width: 100%; max-width: 44rem; height: auto; }
svg text { fill: var(--ink); font-size: 11px; font-family: inherit; }
svg .axis { stroke: var(--soft); }
svg .zero { stroke: var(--ink); }
svg .bar { stroke: var(--blue); stroke-width: 3; }
svg .dot { fill: var(--blue); }
svg .gold { fill: none; stroke: var(--red); stroke-width: 1.8; }
details { font-size: .88rem; margin-top: .8rem; }
summary { cursor: pointer; color: var(--soft); }
pre { white-space: pre-wrap; background: var(--tint); padding: .7rem; border-radius: .3rem; font-size: .8rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  section { break-inside: avoid-page; }
  a { color: inherit; text-decoration: none; }
  details { display: none; }
  .scroll { overflow: visible; }
  @page { size: A4; margin: 18mm; } }
""".strip()
