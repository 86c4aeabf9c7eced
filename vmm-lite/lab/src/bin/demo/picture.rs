//! A client's latency over time: a line of blocks for the terminal, and an SVG.

use std::path::Path;

use plotters::{coord::Shift, prelude::*};
use vmm_lite_lab::{
    Error, Result,
    probe::Seen,
    stats::{human_ns, summary},
};

const WIDTH: usize = 100;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub const ORANGE: RGBAColor = RGBAColor(255, 165, 0, 0.35);
pub const DARK_RED: RGBAColor = RGBAColor(200, 0, 0, 1.0);
pub const GREEN: RGBAColor = RGBAColor(0, 140, 0, 1.0);

/// Something that happened while the client was at work, once or several times.
pub struct Event {
    pub label: &'static str,
    pub colour: RGBAColor,
    /// Begin and end, in ns since the client began; the same for a moment.
    pub spans: Vec<(u64, u64)>,
}

/// Prints the worst latency of each slice of time, on a logarithmic scale, and a mark under it
/// where an event began. `what` names them.
pub fn sparkline(what: &str, events: &[Event], seen: &Seen) {
    let Some(end) = seen.samples.last().map(|s| s.at_ns + 1) else { return };
    let slot =
        |at: u64| (at as u128 * WIDTH as u128 / u128::from(end)).min(WIDTH as u128 - 1) as usize;
    let mut worst = [0u64; WIDTH];
    for s in &seen.samples {
        let w = &mut worst[slot(s.at_ns)];
        *w = (*w).max(s.latency_ns);
    }
    let (low, high) = (worst.iter().filter(|w| **w > 0).min(), worst.iter().max());
    let (Some(&low), Some(&high)) = (low, high) else { return };
    let span = (high as f64 / low as f64).ln().max(f64::MIN_POSITIVE);
    let line: String = worst
        .iter()
        .map(|&w| match w {
            0 => ' ',
            w => BLOCKS[(((w as f64 / low as f64).ln() / span) * 7.0).round() as usize],
        })
        .collect();
    let mut marks = [' '; WIDTH];
    for (began, _) in events.iter().flat_map(|event| &event.spans) {
        marks[slot(*began)] = '↑';
    }
    println!("\nworst latency over time, {} to {}, {what} marked", human_ns(low), human_ns(high));
    println!("{line}\n{}", marks.iter().collect::<String>());
}

/// Draws every request as a point, and every event as a band, or as a line if it was a moment.
/// `during` says in the caption what happened.
pub fn draw(path: &Path, during: &str, events: &[Event], seen: &Seen) -> Result<()> {
    let root = SVGBackend::new(path, (1200, 480)).into_drawing_area();
    plot(&root, during, events, seen).map_err(|e| Error::Protocol {
        what: format!("draw {}", path.display()),
        said: e.to_string(),
    })
}

fn plot(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    during: &str,
    events: &[Event],
    seen: &Seen,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let micros = |ns: u64| ns as f64 / 1e3;
    let end = seen.samples.last().map_or(1.0, |s| seconds(s.at_ns));
    let latencies: Vec<u64> = seen.samples.iter().map(|s| s.latency_ns).collect();
    let s = summary(&latencies);
    let (bottom, top) = (10.0, (micros(s.max) * 2.0).max(100.0));

    root.fill(&WHITE)?;
    let (median, max) = (human_ns(s.median), human_ns(s.max));
    let mut chart = ChartBuilder::on(root)
        .caption(
            format!("Latency of one client {during} (median {median}, max {max})"),
            ("sans-serif", 20),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, (bottom..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("time (s)")
        .y_desc("latency (µs)")
        .light_line_style(WHITE)
        .draw()?;
    for Event { label, colour, spans } in events {
        let colour = *colour;
        chart
            .draw_series(spans.iter().map(|&(began, ended)| {
                let corners = [(seconds(began), bottom), (seconds(ended), top)];
                match began == ended {
                    true => PathElement::new(corners, colour.stroke_width(2)).into_dyn(),
                    false => Rectangle::new(corners, colour.filled()).into_dyn(),
                }
            }))?
            .label(*label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    chart
        .draw_series(
            seen.samples
                .iter()
                .map(|s| Circle::new((seconds(s.at_ns), micros(s.latency_ns)), 2, BLUE.filled())),
        )?
        .label("a request")
        .legend(|(x, y)| Circle::new((x + 7, y), 3, BLUE.filled()));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}
