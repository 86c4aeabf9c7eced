//! The plots: the distribution of what guests and clients saw of moves and of snapshots; and the
//! blackout by the size of the memory.

use std::path::Path;

use plotters::prelude::*;
use vmm_lite_lab::{Error, Result};

use crate::{report::Results, sizes::Size};

/// One of several pictures above each other.
struct Panel {
    caption: String,
    /// What a sample measures.
    of: &'static str,
    /// Samples in ns, by name.
    series: Vec<(String, Vec<u64>)>,
}

/// Draws all results that exist.
pub fn draw(results: &Results, out: &Path) -> Result<()> {
    let moves = results.moves.iter().map(|scenario| Panel {
        caption: format!("{}: blackout as seen by guest or client", scenario.name),
        of: "moves",
        series: series(&scenario.figures, |f| (&f.system, &f.watch.gaps_ns)),
    });
    save(&out.join("blackout.svg"), &moves.collect::<Vec<_>>())?;
    if !results.sizes.is_empty() {
        let path = out.join("sizes.svg");
        by_size(&path, &results.sizes).map_err(cannot_draw(&path))?;
    }
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
    distributions(path, panels).map_err(cannot_draw(path))
}

fn cannot_draw(path: &Path) -> impl FnOnce(Box<dyn std::error::Error>) -> Error {
    let what = format!("draw {}", path.display());
    |e| Error::Protocol { what, said: e.to_string() }
}

/// Median, p99 and maximum of the blackout by the size of the memory, both on logarithmic scales.
fn by_size(path: &Path, sizes: &[Size]) -> std::result::Result<(), Box<dyn std::error::Error>> {
    type Figure = (&'static str, fn(&Size) -> u64, RGBColor);
    const FIGURES: [Figure; 3] = [
        ("median", |size| size.blackout_ns.median, BLUE),
        ("p99", |size| size.blackout_ns.p99, GREEN),
        ("greatest", |size| size.blackout_ns.max, RED),
    ];
    let mib = |size: &Size| f64::from(size.memory_mib);
    let ends = sizes.first().map_or(1.0, mib)..sizes.last().map_or(1.0, mib) * 1.01;
    let greatest = sizes.iter().map(|size| size.blackout_ns.max).max().unwrap_or_default();
    let most = (greatest as f64 / 1e3 * 1.2).max(1000.0);
    let root = SVGBackend::new(path, (900, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("kv under load: blackout by the size of the memory", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(ends.log_scale(), (10.0..most).log_scale())?;
    chart.configure_mesh().x_desc("MiB").y_desc("µs").draw()?;
    for (name, figure, colour) in FIGURES {
        let points = sizes.iter().map(|size| (mib(size), figure(size) as f64 / 1e3));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(4))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// Cumulative distributions on a logarithmic scale, which show the tail.
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
