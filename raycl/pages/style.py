"""How every page looks, in light and in dark."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --ink: #1d2430; --muted: #5c6675; --line: #e1e4e8;
  --first: #2463c7; --second: #d9822b; --third: #2f9e6e; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --card: #1b2027; --ink: #e6e9ee; --muted: #a0a9b6;
  --line: #323a45; --first: #6ea8fe; --second: #f0a95b; --third: #5fd0a0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 56rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
header p { margin: 0; color: var(--muted); font-family: ui-monospace, monospace; font-size: 13px; }
h1 { margin: 0 0 1.5rem; font-size: 2rem; line-height: 1.2; }
h2 { margin: 0 0 1rem; font-size: 1.2rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: .95rem; }
section { margin-top: 1.25rem; padding: 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
figure { margin: 0 0 1rem; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .75rem; margin: 0; }
.cards div { padding: .8rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.cards dt { color: var(--muted); font-size: 13px; }
.cards dd { margin: 0; font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; }
.cards small { display: block; color: var(--muted); font-size: 13px; font-weight: 400; }
.table { overflow: auto; max-height: 34rem; }
table { width: 100%; border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 400; }
thead th { position: sticky; top: 0; background: var(--card); color: var(--muted); font-size: 13px; }
th:first-child { padding-left: 0; text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
.note, footer { color: var(--muted); font-size: 13.5px; }
.note { margin: .6rem 0 0; overflow-wrap: anywhere; }
.note + .table { margin-top: 1rem; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 2rem; }
@media print { .table { max-height: none; overflow: visible; } section { break-inside: avoid; } }
"""
