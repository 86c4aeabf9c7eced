//! The client's latency over time: a line of blocks for the terminal, and an SVG.

use std::path::Path;

use plotters::prelude::*;
use vmm_lite_lab::{
    Error, Result,
    probe::Seen,
    stats::{human_ns, summary},
};

use crate::Move;

const WIDTH: usize = 100;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Prints the worst latency of each slice of time, on a logarithmic scale, and the moves under it.
pub fn sparkline(moves: &[Move], seen: &Seen) {
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
    for m in moves {
        marks[slot(m.began_ns)] = '↑';
    }
    println!("\nworst latency over time, {} to {}, moves marked", human_ns(low), human_ns(high));
    println!("{line}\n{}", marks.iter().collect::<String>());
}

/// Draws every request as a point and every move as a band.
pub fn draw(path: &Path, moves: &[Move], seen: &Seen) -> Result<()> {
    plot(path, moves, seen).map_err(|e| Error::Protocol {
        what: format!("draw {}", path.display()),
        said: e.to_string(),
    })
}

fn plot(
    path: &Path,
    moves: &[Move],
    seen: &Seen,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let micros = |ns: u64| ns as f64 / 1e3;
    let end = seen.samples.last().map_or(1.0, |s| seconds(s.at_ns));
    let latencies: Vec<u64> = seen.samples.iter().map(|s| s.latency_ns).collect();
    let s = summary(&latencies);

    let root = SVGBackend::new(path, (1200, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            format!(
                "Latency of one client over {} moves (median {}, max {})",
                moves.len(),
                human_ns(s.median),
                human_ns(s.max)
            ),
            ("sans-serif", 20),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, (10.0..(micros(s.max) * 2.0).max(100.0)).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("time (s)")
        .y_desc("latency (µs)")
        .light_line_style(WHITE)
        .draw()?;
    let top = (micros(s.max) * 2.0).max(100.0);
    chart
        .draw_series(moves.iter().map(|m| {
            Rectangle::new(
                [(seconds(m.began_ns), 10.0), (seconds(m.ended_ns), top)],
                ORANGE_BAND.filled(),
            )
        }))?
        .label("a move")
        .legend(|(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], ORANGE_BAND.filled()));
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
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

const ORANGE_BAND: RGBAColor = RGBAColor(255, 165, 0, 0.35);
