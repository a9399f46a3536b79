"""The look of a report: light and dark by the reader's choice, and always light on paper."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d2126; --soft: #59626d; --rule: #d5dae0;
  --grid: #e3e7eb; --tint: #f4f6f8; --accent: #1f5fbf; --right: #15803d; --wrong: #b91c1c;
  --line0: #1f5fbf; --line1: #c2410c; --line2: #15803d; --line3: #7e22ce; --line4: #a16207;
  --line5: #0e7490 }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e4e7ea; --soft: #a3adb8;
  --rule: #3a424a; --grid: #2b3238; --tint: #1d2226; --accent: #7fb0ff; --right: #5fd38a;
  --wrong: #ff8a80; --line0: #7fb0ff; --line1: #ffa266; --line2: #6fd896; --line3: #cf9bff;
  --line4: #e6c35c; --line5: #67d3e6 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 64rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--rule) }
p { margin: .5rem 0 } a { color: var(--accent) }
.soft, figcaption, caption { color: var(--soft) }
.note { background: var(--tint); border-left: 3px solid var(--accent); padding: .5rem .8rem }
ul.key { list-style: none; display: flex; flex-wrap: wrap; gap: .6rem; padding: 0; margin: 1rem 0 }
ul.key li { background: var(--tint); border-radius: .4rem; padding: .5rem .9rem; min-width: 8rem }
ul.key b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; list-style: none }
dl { display: grid; grid-template-columns: minmax(8rem, 13rem) 1fr; gap: .15rem 1rem;
  margin: .5rem 0 }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
.wide { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font-size: .9rem; min-width: 50% }
caption { text-align: left; padding: .2rem 0 }
th, td { text-align: left; padding: .22rem 1.1rem .22rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; overflow-wrap: anywhere }
th { font-weight: 600 } thead th { vertical-align: bottom; overflow-wrap: normal }
tbody th { font-weight: 400; min-width: 9rem; max-width: 22rem }
.n { text-align: right; font-variant-numeric: tabular-nums } td.n { white-space: nowrap }
.bar { position: relative; min-width: 9rem } .bar b { position: relative; font-weight: 400 }
.bar span { position: absolute; left: 0; top: .25rem; bottom: .25rem; border-radius: .15rem;
  background: var(--accent); opacity: .28 }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1rem }
figure { margin: .5rem 0 } svg { width: 100%; max-width: 38rem; height: auto }
.fail { display: flex; flex-wrap: wrap; gap: .6rem; margin: .6rem 0; padding: .6rem 0;
  border-bottom: 1px solid var(--rule) }
.fail figure { width: 8.5rem; margin: 0; font-size: .8rem; overflow-wrap: anywhere }
.fail img, .fail .gone { display: block; width: 8.5rem; height: 8.5rem; object-fit: cover;
  background: var(--tint); border: 3px solid var(--accent); border-radius: .3rem }
.fail .gone { display: flex; align-items: center; justify-content: center; color: var(--soft) }
.fail .wrong img, .fail .wrong .gone { border: 3px dashed var(--wrong) }
.fail .right img, .fail .right .gone { border-color: var(--right) }
code, .hash { font: .85em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere }
pre { background: var(--tint); padding: .6rem .8rem; overflow-x: auto; white-space: pre-wrap }
@page { size: A4; margin: 16mm 14mm }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --rule: #bbb;
    --grid: #ddd; --tint: #f2f2f2; --accent: #1f5fbf; --right: #15803d; --wrong: #b91c1c;
    --line0: #1f5fbf; --line1: #c2410c; --line2: #15803d; --line3: #7e22ce; --line4: #a16207;
    --line5: #0e7490 }
  body { font-size: 10pt } table { font-size: 8.5pt } nav { display: none }
  main { max-width: none; padding: 0 }
  h2 { break-after: avoid } tr, figure, .fail, dl, .note { break-inside: avoid }
  thead { display: table-header-group } .wide { overflow: visible }
  #failures, #licences { break-before: page }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
}
"""
