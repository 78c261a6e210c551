//! The dashboard as a picture: its cells as SVG, for documentation.

use super::{App, Tab, render, theme::Theme};
use aksim_model::world::World;
use jiff::Timestamp;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};
use std::{fmt::Write, sync::Arc};

/// Size of a cell in SVG units: as high as the line characters, so that boxes close.
const WIDE: f32 = 8.4;
const HIGH: f32 = 16.3;
const MARGIN: f32 = 14.0;
const PAPER: &str = "#16181d";
const INK: &str = "#d7dae0";

/// The dashboard of `world` on `tab` as an SVG picture of `width` × `height` cells.
///
/// Ages are measured at the world's last event, so the same world gives the same picture.
pub fn screenshot_svg(environment: &str, world: &World, tab: Tab, width: u16, height: u16) -> String {
    let mut app = App::new(environment, Arc::new(world.clone()), last_moment(world), Theme::new(true, true));
    app.show(tab);
    let mut terminal = match Terminal::new(TestBackend::new(width, height)) {
        Ok(terminal) => terminal,
        Err(never) => match never {},
    };
    match terminal.draw(|frame| render(&app, frame)) {
        Ok(_) => svg(terminal.backend().buffer()),
        Err(never) => match never {},
    }
}

/// The latest moment that the world knows of.
fn last_moment(world: &World) -> Timestamp {
    let components = world.components.values().map(|c| c.since);
    let services = world.services.values().map(|s| s.since);
    let flow = world.flow.values().map(|f| f.at);
    let hops = world.journeys.iter().flat_map(|j| j.hops.iter().map(|h| h.at));
    components.chain(services).chain(flow).chain(hops).max().unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A buffer of cells as SVG.
fn svg(buffer: &Buffer) -> String {
    let area = buffer.area;
    let (wide, high) = (f32::from(area.width) * WIDE + 2.0 * MARGIN, f32::from(area.height) * HIGH + 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide:.1} {high:.1}\" \
         font-family=\"ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"10\" fill=\"{PAPER}\"/>\n"
    );
    for y in 0..area.height {
        let mut x = 0;
        while x < area.width {
            let first = &buffer[(x, y)];
            let start = x;
            let mut text = String::new();
            while x < area.width && same_style(first, &buffer[(x, y)]) {
                text.push_str(buffer[(x, y)].symbol());
                x += 1;
            }
            run(&mut out, first, &text, start, x - start, y);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn same_style(a: &Cell, b: &Cell) -> bool {
    (a.fg, a.bg, a.modifier) == (b.fg, b.bg, b.modifier)
}

/// Cells of one style in a row: background, then text stretched to exactly their width.
fn run(out: &mut String, cell: &Cell, text: &str, column: u16, cells: u16, row: u16) {
    let (mut ink, mut paper) = (color(cell.fg, INK), color(cell.bg, PAPER));
    if cell.modifier.contains(Modifier::REVERSED) {
        std::mem::swap(&mut ink, &mut paper);
    }
    let (x, y) = (MARGIN + f32::from(column) * WIDE, MARGIN + f32::from(row) * HIGH);
    let length = f32::from(cells) * WIDE;
    // Writing to a String cannot fail.
    if paper != PAPER {
        let _ =
            writeln!(out, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{HIGH}\" fill=\"{paper}\"/>");
    }
    if text.trim().is_empty() {
        return;
    }
    let mut style = String::new();
    for (modifier, attribute) in [
        (Modifier::BOLD, " font-weight=\"700\""),
        (Modifier::DIM, " opacity=\".62\""),
        (Modifier::ITALIC, " font-style=\"italic\""),
        (Modifier::UNDERLINED, " text-decoration=\"underline\""),
    ] {
        if cell.modifier.contains(modifier) {
            style.push_str(attribute);
        }
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let baseline = y + HIGH * 0.75;
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{baseline:.1}\" textLength=\"{length:.1}\" lengthAdjust=\"spacingAndGlyphs\" \
         xml:space=\"preserve\" fill=\"{ink}\"{style}>{text}</text>"
    );
}

/// The colours of a common dark terminal theme.
fn color(color: Color, default: &'static str) -> &'static str {
    match color {
        Color::Black => "#16181d",
        Color::Red | Color::LightRed => "#ef7a7a",
        Color::Green | Color::LightGreen => "#8fc87a",
        Color::Yellow | Color::LightYellow => "#e6c06b",
        Color::Blue | Color::LightBlue => "#79aef0",
        Color::Magenta | Color::LightMagenta => "#c792dd",
        Color::Cyan | Color::LightCyan => "#62c3cf",
        Color::White | Color::Gray => "#d7dae0",
        Color::DarkGray => "#7d828c",
        _ => default,
    }
}
