//! The plots: the spread of blackouts of each scenario, as seen by guest or client.

use std::path::Path;

use plotters::prelude::*;
use vmm_lite_lab::{Error, Result};

use crate::{moves::Scenario, report::Results};

/// Draws what there is.
pub fn draw(results: &Results, out: &Path) -> Result<()> {
    if results.moves.is_empty() {
        return Ok(());
    }
    let path = out.join("blackout.svg");
    distribution(&path, &results.moves).map_err(|e| Error::Protocol {
        what: format!("draw {}", path.display()),
        said: e.to_string(),
    })
}

/// Cumulative distributions on a logarithmic scale, one panel a scenario: a tail shows as a tail.
fn distribution(
    path: &Path,
    scenarios: &[Scenario],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    const COLOURS: [RGBColor; 2] = [BLUE, RED];
    let root = SVGBackend::new(path, (1200, 260 * scenarios.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (panel, scenario) in root.split_evenly((scenarios.len(), 1)).iter().zip(scenarios) {
        let mut chart = ChartBuilder::on(panel)
            .caption(
                format!("{}: blackout as seen by guest or client", scenario.name),
                ("sans-serif", 18),
            )
            .margin(10)
            .x_label_area_size(32)
            .y_label_area_size(50)
            .build_cartesian_2d((10.0..200_000.0).log_scale(), 0.0..1.0)?;
        chart.configure_mesh().x_desc("µs").y_desc("share of moves").draw()?;
        for (figures, colour) in scenario.figures.iter().zip(COLOURS) {
            let mut sorted = figures.gaps_ns.clone();
            sorted.sort_unstable();
            let n = sorted.len() as f64;
            let points =
                sorted.iter().enumerate().map(|(i, ns)| (*ns as f64 / 1e3, (i + 1) as f64 / n));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(figures.system.clone())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()?;
    }
    root.present()?;
    Ok(())
}
