//! The plots: the spread of what guests and clients saw, of moves and of snapshots.

use std::path::Path;

use plotters::prelude::*;
use vmm_lite_lab::{Error, Result};

use crate::report::Results;

/// One picture among those above and below it.
struct Panel {
    caption: String,
    /// What one sample is of.
    of: &'static str,
    /// Samples in ns, by name.
    series: Vec<(String, Vec<u64>)>,
}

/// Draws what there is.
pub fn draw(results: &Results, out: &Path) -> Result<()> {
    let moves = results.moves.iter().map(|scenario| Panel {
        caption: format!("{}: blackout as seen by guest or client", scenario.name),
        of: "moves",
        series: series(&scenario.figures, |f| (&f.system, &f.watch.gaps_ns)),
    });
    save(&out.join("blackout.svg"), &moves.collect::<Vec<_>>())?;
    let Some(snapshots) = &results.snapshots else { return Ok(()) };
    let saves = snapshots.saves.iter().map(|scenario| Panel {
        caption: format!("{}: snapshot as seen by guest or client", scenario.name),
        of: "snapshots",
        series: series(&scenario.figures, |f| (&f.system, &f.watch.gaps_ns)),
    });
    let restores = Panel {
        caption: "kv: exec to first reply".into(),
        of: "restores",
        series: series(&snapshots.restores, |f| (&f.name, &f.first_replies_ns)),
    };
    save(&out.join("snapshots.svg"), &saves.chain([restores]).collect::<Vec<_>>())
}

fn series<F>(figures: &[F], of: impl Fn(&F) -> (&String, &Vec<u64>)) -> Vec<(String, Vec<u64>)> {
    figures.iter().map(of).map(|(name, samples)| (name.clone(), samples.clone())).collect()
}

fn save(path: &Path, panels: &[Panel]) -> Result<()> {
    if panels.is_empty() {
        return Ok(());
    }
    distributions(path, panels).map_err(|e| Error::Protocol {
        what: format!("draw {}", path.display()),
        said: e.to_string(),
    })
}

/// Cumulative distributions on a logarithmic scale: a tail shows as a tail.
fn distributions(
    path: &Path,
    panels: &[Panel],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    const COLOURS: [RGBColor; 3] = [BLUE, RED, GREEN];
    let root = SVGBackend::new(path, (1200, 260 * panels.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
        let longest = panel.series.iter().flat_map(|(_, samples)| samples).max();
        let end = longest.map_or(0.0, |ns| *ns as f64 / 1e3).max(200_000.0);
        let mut chart = ChartBuilder::on(area)
            .caption(&panel.caption, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(32)
            .y_label_area_size(50)
            .build_cartesian_2d((10.0..end).log_scale(), 0.0..1.0)?;
        let share = format!("share of {}", panel.of);
        chart.configure_mesh().x_desc("µs").y_desc(share).draw()?;
        for ((name, samples), colour) in panel.series.iter().zip(COLOURS) {
            let mut sorted = samples.clone();
            sorted.sort_unstable();
            let n = sorted.len() as f64;
            let points =
                sorted.iter().enumerate().map(|(i, ns)| (*ns as f64 / 1e3, (i + 1) as f64 / n));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(name.clone())
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
