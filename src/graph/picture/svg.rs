//! A graph as a drawing that every browser shows: boxes in rows, arrows from top to bottom.

use std::fmt::Write;

use super::{View, ViewNode, layout};

const BOX_WIDTH: f64 = 168.0;
const BOX_HEIGHT: f64 = 46.0;
const GAP_X: f64 = 28.0;
const GAP_Y: f64 = 54.0;
const MARGIN: f64 = 24.0;
const TITLE_HEIGHT: f64 = 28.0;
/// Longer captions are cut, so that they stay in their box.
const MOST_LETTERS: usize = 22;

/// The drawing. Solid lines are declared, dashed ones come from references; the critical path is thick.
pub fn svg(view: &View) -> String {
    let rows = layout::rows(view);
    let widest = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let width = MARGIN * 2.0 + widest as f64 * BOX_WIDTH + (widest - 1) as f64 * GAP_X;
    let height =
        MARGIN * 2.0 + TITLE_HEIGHT + rows.len() as f64 * (BOX_HEIGHT + GAP_Y) - GAP_Y.min(rows.len() as f64 * GAP_Y);
    let mut places = vec![(0.0, 0.0); view.nodes.len()];
    for (level, row) in rows.iter().enumerate() {
        let row_width = row.len() as f64 * (BOX_WIDTH + GAP_X) - GAP_X;
        let left = (width - row_width) / 2.0;
        for (index, node) in row.iter().enumerate() {
            if let Some(place) = places.get_mut(*node) {
                let x = left + index as f64 * (BOX_WIDTH + GAP_X);
                let y = MARGIN + TITLE_HEIGHT + level as f64 * (BOX_HEIGHT + GAP_Y);
                *place = (x, y);
            }
        }
    }
    let mut text = String::new();
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" role=\"img\">"
    );
    let title = escape(&view.title);
    let _ = writeln!(text, "<title>{title}</title>");
    text.push_str(
        "<defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
         markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#456\"/></marker></defs>\n",
    );
    let _ = writeln!(text, "<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>");
    let middle = width / 2.0;
    let _ = writeln!(
        text,
        "<text x=\"{middle}\" y=\"{MARGIN}\" text-anchor=\"middle\" font-size=\"15\" fill=\"#123\">{title}</text>"
    );
    for arrow in &view.arrows {
        let (Some((from_x, from_y)), Some((to_x, to_y))) = (places.get(arrow.from), places.get(arrow.to)) else {
            continue;
        };
        let (x1, y1) = (from_x + BOX_WIDTH / 2.0, from_y + BOX_HEIGHT);
        let (x2, y2) = (to_x + BOX_WIDTH / 2.0, *to_y);
        let bend = (y2 - y1) / 2.0;
        let dash = if arrow.declared { "" } else { " stroke-dasharray=\"5 4\"" };
        let thickness = if arrow.critical { 3 } else { 1 };
        let _ = writeln!(
            text,
            "<path d=\"M{x1} {y1}C{x1} {} {x2} {} {x2} {y2}\" fill=\"none\" stroke=\"#456\" stroke-width=\"{thickness}\"{dash} \
             marker-end=\"url(#head)\"/>",
            y1 + bend,
            y2 - bend
        );
    }
    for (node, (x, y)) in view.nodes.iter().zip(&places) {
        draw_box(&mut text, node, *x, *y);
    }
    text.push_str("</svg>\n");
    text
}

fn draw_box(text: &mut String, node: &ViewNode, x: f64, y: f64) {
    let (fill, stroke) = colours(node.status.as_deref().and_then(|status| status.split(':').next()));
    let thickness = if node.critical { 3 } else { 1 };
    let round = if node.finally { BOX_HEIGHT / 2.0 } else { 5.0 };
    let middle = x + BOX_WIDTH / 2.0;
    let second = match &node.status {
        Some(status) => format!("{} · {status}", node.action),
        None => node.action.clone(),
    };
    let _ = writeln!(
        text,
        "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"{round}\" \
         fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"{thickness}\"/>\
         <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-size=\"13\" fill=\"#123\">{}</text>\
         <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\" fill=\"#456\">{}</text></g>",
        escape(&node.caption()),
        y + 19.0,
        escape(&cut(&node.label)),
        y + 35.0,
        escape(&cut(&second))
    );
}

/// Fill and line by how the step ended; the words stand in the box too, so that nobody needs the colour.
fn colours(status: Option<&str>) -> (&'static str, &'static str) {
    match status {
        Some("succeeded") => ("#e3f4e3", "#2e7d32"),
        Some("failed" | "timed_out") => ("#fbe3e3", "#b71c1c"),
        Some("running") => ("#e3ecfb", "#1a4fa3"),
        Some("waiting" | "unknown") => ("#fdf3d8", "#8a6100"),
        Some("skipped" | "cancelled") => ("#eee", "#777"),
        Some(_) | None => ("#f5f8fb", "#456"),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MOST_LETTERS {
        return text.to_owned();
    }
    text.chars().take(MOST_LETTERS - 1).chain(['…']).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
