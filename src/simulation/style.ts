/** The style sheet of pictures. */

/** Contrast is at least 4.5 for text and 3 for shapes on either background. */
export const style = `
.throttle-simulation{--back:#fff;--ink:#1f2328;--soft:#59636e;--grid:#e4e8ec;--wait:#9a6700;--run:#0969da;
--arrive:#6e7781;--bad:#cf222e;--cut:#8250df;--limit:#bc4c00;--band:#59636e;
font:12px ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
@media (prefers-color-scheme:dark){.throttle-simulation{--back:#0d1117;--ink:#f0f6fc;--soft:#9198a1;--grid:#252b33;
--wait:#d29922;--run:#4493f8;--arrive:#9198a1;--bad:#ff7b72;--cut:#ab7df8;--limit:#f0883e;--band:#9198a1}}
.throttle-simulation text{fill:var(--ink);paint-order:stroke;stroke:var(--back);stroke-width:3px;stroke-linejoin:round}
.throttle-simulation .name{font-weight:600;font-size:13px}
.throttle-simulation .axis,.throttle-simulation .scale,.throttle-simulation .key{fill:var(--soft);font-size:11px}
.throttle-simulation .back{fill:var(--back)}
.throttle-simulation .grid{stroke:var(--grid)}
.throttle-simulation .base{stroke:var(--soft);stroke-opacity:.5}
.throttle-simulation .edge{stroke:var(--soft);stroke-opacity:.55;stroke-dasharray:1 3}
.throttle-simulation .limit{fill:none;stroke:var(--limit);stroke-width:1.5;stroke-dasharray:5 3}
.throttle-simulation .limited{fill:var(--limit);font-size:11px}
.throttle-simulation .wait{stroke:var(--wait);stroke-width:1.5}
.throttle-simulation .arrive{fill:var(--wait)}
.throttle-simulation .run{fill:var(--run)}
.throttle-simulation .bad{stroke:var(--bad);stroke-width:2;fill:none}
.throttle-simulation .cut{stroke:var(--cut);stroke-width:1.5;fill:var(--back)}
.throttle-simulation .band{fill:var(--band);fill-opacity:.13}
.throttle-simulation .bandname{fill:var(--soft);font-size:11px}
.throttle-simulation .area{fill:currentColor;fill-opacity:.22}
.throttle-simulation .line{fill:none;stroke:currentColor;stroke-width:1.5;stroke-linejoin:round}
.throttle-simulation .arrivals{color:var(--arrive)}
.throttle-simulation .refused{color:var(--bad)}
.throttle-simulation .waiting{color:var(--wait)}
.throttle-simulation .running,.throttle-simulation .starts{color:var(--run)}
`.replaceAll("\n", "")
