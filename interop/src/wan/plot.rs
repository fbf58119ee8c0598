//! Figures as pictures: SVG with words left to the reader's fonts.

use std::ops::Range;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::results::Results;
use super::subject::{Kind, Subject};
use super::sweep::{LOSSES, Point, ROUND_TRIPS};
use super::timeline::{AT, Line};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Points = Vec<(f64, f64)>;

/// The smallest and the largest latency that are shown, as powers of ten of milliseconds.
const LATENCY: Range<f64> = 1.0..4.3;
/// Mbit/s at the top of a time line: what has waited comes at once, faster than any link.
const MOST: f64 = 120.0;
const FONT: &str = "sans-serif";

/// Goodput over loss: a panel for each round trip.
///
/// # Errors
/// When it cannot be drawn, which is a mistake in the figures.
pub fn sweep(points: &[Point]) -> anyhow::Result<String> {
    let subjects = distinct(points.iter().map(|point| &point.subject));
    draw((1080, 360), |root| {
        let panels = root.split_evenly((1, ROUND_TRIPS.len()));
        for (panel, round_trip) in panels.iter().zip(ROUND_TRIPS) {
            let title = format!("Mbit/s at {round_trip} ms");
            let axes = Axes {
                x: 0.0..(LOSSES.len() - 1) as f64,
                y: 0.0..100.0,
                x_name: "loss each way, %",
                x_label: loss,
                y_label: plain,
            };
            let mut chart = axes.on(panel, &title)?;
            for subject in &subjects {
                let of = |point: &&Point| point.subject == **subject && point.round_trip == round_trip;
                let place = |point: &Point| {
                    let at = LOSSES.iter().position(|loss| (loss - point.loss).abs() < 1e-9)?;
                    Some((at as f64, point.goodput))
                };
                line(&mut chart, subject, points.iter().filter(of).filter_map(place).collect())?;
            }
            if round_trip == ROUND_TRIPS[ROUND_TRIPS.len() - 1] {
                legend(&mut chart, SeriesLabelPosition::UpperRight)?;
            }
        }
        Ok(())
    })
}

/// Cumulative distributions on one link: echo beside 4 bulk dials each way, dial and echo beside them, and dial and echo
/// with nothing else.
///
/// # Errors
/// When it cannot be drawn, which is a mistake in the figures.
pub fn latencies(results: &Results, link: &str) -> anyhow::Result<String> {
    /// How many points are enough for a line.
    const POINTS: usize = 100;
    let subjects = results.subjects(link);
    let titles = ["echo beside 4 bulk dials", "dial + echo beside 4 bulk dials", "dial + echo, nothing else"];
    draw((1080, 360), |root| {
        for (place, (panel, title)) in root.split_evenly((1, 3)).iter().zip(titles).enumerate() {
            let axes = Axes { x: LATENCY, y: 0.0..100.0, x_name: "ms", x_label: power, y_label: percent };
            let mut chart = axes.on(panel, title)?;
            for subject in &subjects {
                let latencies = match place {
                    0 => results
                        .latencies(link, subject, "beside/to-client/4")
                        .0
                        .and(results.latencies(link, subject, "beside/to-target/4").0),
                    1 => results
                        .latencies(link, subject, "beside/to-client/4")
                        .1
                        .and(results.latencies(link, subject, "beside/to-target/4").1),
                    _ => results.latencies(link, subject, "alone").1,
                };
                let points = latencies.distribution(POINTS).into_iter().zip(1..);
                let points = points.filter(|(ms, _)| ms.is_finite()).map(|(ms, part)| (logarithm(ms), f64::from(part)));
                line(&mut chart, subject, points.collect())?;
            }
            if place == 2 {
                legend(&mut chart, SeriesLabelPosition::LowerRight)?;
            }
        }
        Ok(())
    })
}

/// Goodput and echo over time, of several subjects to whom the same happens.
///
/// # Errors
/// When it cannot be drawn, which is a mistake in the figures.
pub fn timeline(lines: &[&Line]) -> anyhow::Result<String> {
    let Some(first) = lines.first() else { return Err(anyhow!("there is no line")) };
    let seconds = first.event.length.as_secs_f64();
    let (from, to) = (AT.as_secs_f64(), (AT + first.event.outage.unwrap_or_default()).as_secs_f64());
    draw((900, 560), |root| {
        let (upper, lower) = root.split_vertically(280);
        let axes = Axes { x: 0.0..seconds, y: 0.0..MOST, x_name: "s", x_label: plain, y_label: plain };
        let mut chart = axes.on(&upper, &format!("goodput, Mbit/s: {}", first.event.title))?;
        shade(&mut chart, (from, to), 0.0..MOST)?;
        for it in lines {
            let goodput = it.goodput.iter().map(|goodput| goodput.min(MOST));
            line(&mut chart, &it.subject, it.times().zip(goodput).collect())?;
        }
        let axes = Axes { x: 0.0..seconds, y: LATENCY, x_name: "s", x_label: plain, y_label: power };
        let title = "longest echo that began in each quarter of a second, ms (at the top: it never came)";
        let mut chart = axes.on(&lower, title)?;
        shade(&mut chart, (from, to), LATENCY)?;
        for it in lines {
            let seen = it.times().zip(&it.echo).map(|(at, echo)| Some((at, logarithm((*echo)?).min(LATENCY.end))));
            interrupted(&mut chart, &it.subject, &seen.collect::<Vec<_>>())?;
        }
        legend(&mut chart, SeriesLabelPosition::UpperRight)
    })
}

/// What a panel shows.
struct Axes {
    x: Range<f64>,
    y: Range<f64>,
    x_name: &'static str,
    x_label: fn(&f64) -> String,
    y_label: fn(&f64) -> String,
}

impl Axes {
    fn on<'a, 'b>(self, panel: &'a Area<'b>, title: &str) -> anyhow::Result<Chart<'a, 'b>> {
        let mut chart = ChartBuilder::on(panel)
            .caption(title, (FONT, 18))
            .margin(8)
            .margin_right(16)
            .x_label_area_size(38)
            .y_label_area_size(46)
            .build_cartesian_2d(self.x, self.y)
            .map_err(failed)?;
        let mut mesh = chart.configure_mesh();
        let mesh = mesh.x_labels(LOSSES.len()).x_label_formatter(&self.x_label).y_label_formatter(&self.y_label);
        let mesh =
            mesh.x_desc(self.x_name).label_style((FONT, 15)).axis_desc_style((FONT, 15)).light_line_style(TRANSPARENT);
        mesh.bold_line_style(BLACK.mix(0.12)).draw().map_err(failed)?;
        Ok(chart)
    }
}

fn line(chart: &mut Chart<'_, '_>, subject: &Subject, points: Points) -> anyhow::Result<()> {
    let style = style(subject);
    let series = chart.draw_series(LineSeries::new(points, style)).map_err(failed)?;
    series.label(subject.to_string()).legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    Ok(())
}

/// With a gap where there is nothing.
fn interrupted(chart: &mut Chart<'_, '_>, subject: &Subject, steps: &[Option<(f64, f64)>]) -> anyhow::Result<()> {
    let mut style = style(subject);
    // Named once.
    line(chart, subject, Points::new())?;
    for part in steps.split(Option::is_none).filter(|part| !part.is_empty()) {
        let points: Points = part.iter().copied().flatten().collect();
        if let [alone] = points[..] {
            style.filled = true;
            chart.draw_series([Circle::new(alone, 3, style)]).map_err(failed)?;
        } else {
            chart.draw_series(LineSeries::new(points, style)).map_err(failed)?;
        }
    }
    Ok(())
}

/// The time in which it happens; a moment is a thin line.
fn shade(chart: &mut Chart<'_, '_>, (from, to): (f64, f64), y: Range<f64>) -> anyhow::Result<()> {
    let corners = [(from, y.start), (to.max(from + 0.05), y.end)];
    chart.draw_series([Rectangle::new(corners, BLACK.mix(0.12).filled())]).map_err(failed)?;
    Ok(())
}

fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, position: SeriesLabelPosition) -> anyhow::Result<()> {
    let mut labels = chart.configure_series_labels();
    let labels = labels.position(position).background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.3));
    labels.label_font((FONT, 15)).draw().map_err(failed)
}

/// A colour for each kind, pale for other congestion controls than the first.
fn style(subject: &Subject) -> ShapeStyle {
    let colour = match subject.kind {
        Kind::Ours => RGBColor(0x00, 0x5a, 0xb5),
        Kind::Go => RGBColor(0xdc, 0x32, 0x20),
        Kind::Ssh => RGBColor(0x1a, 0x85, 0x3c),
        Kind::Direct => RGBColor(0x55, 0x55, 0x55),
    };
    let is_pale = subject.congestion_control.as_deref() == Some("bbr");
    let width = if subject.is_ours() { 3 } else { 2 };
    colour.mix(if is_pale { 0.45 } else { 1.0 }).stroke_width(width)
}

fn draw(size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        paint(&root)?;
        root.present().map_err(failed)?;
    }
    Ok(text)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}

fn distinct<'a>(subjects: impl Iterator<Item = &'a Subject>) -> Vec<&'a Subject> {
    let mut distinct: Vec<_> = subjects.collect();
    distinct.sort();
    distinct.dedup();
    distinct
}

fn logarithm(ms: f64) -> f64 {
    ms.max(1.0).log10()
}

fn plain(value: &f64) -> String {
    format!("{value:.0}")
}

fn percent(value: &f64) -> String {
    format!("{value:.0} %")
}

/// Whole powers of ten only.
fn power(value: &f64) -> String {
    let is_whole = (value - value.round()).abs() < 1e-6;
    if is_whole { format!("{:.0}", 10_f64.powf(*value)) } else { String::new() }
}

fn loss(at: &f64) -> String {
    LOSSES.get(at.round() as usize).map_or_else(String::new, |loss| format!("{loss}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine::Machine;
    use crate::wan::timeline::EVENTS;

    fn subjects() -> [Subject; 2] {
        ["ours", "go/bbr"].map(|name| name.parse().unwrap())
    }

    #[test]
    fn goodput_over_loss_has_a_panel_for_each_round_trip_and_a_legend() {
        let points: Vec<_> = subjects()
            .into_iter()
            .flat_map(|subject| ROUND_TRIPS.map(|round_trip| (subject.clone(), round_trip)))
            .flat_map(|(subject, round_trip)| {
                LOSSES.map(|loss| Point {
                    subject: subject.clone(),
                    round_trip,
                    loss,
                    goodput: 90.0 - loss,
                    doubts: Vec::new(),
                })
            })
            .collect();
        let svg = sweep(&points).unwrap();
        for text in ["<svg", "Mbit/s at 20 ms", "Mbit/s at 100 ms", "go/bbr", "ours", "</svg>"] {
            assert!(svg.contains(text), "{text}\n{svg}");
        }
    }

    #[test]
    fn a_time_line_is_small_and_what_never_came_is_at_its_top() {
        let lines = subjects().map(|subject| Line {
            subject,
            event: EVENTS[1],
            goodput: vec![93.7; 240],
            echo: [Some(51.3), None, Some(f64::INFINITY)].repeat(80),
            ended: 0,
            doubts: Vec::new(),
        });
        let svg = timeline(&lines.iter().collect::<Vec<_>>()).unwrap();
        assert!(svg.len() < 100_000, "{} bytes", svg.len());
        // What never came is at the top of its panel, not outside of the picture.
        let lines = svg.split("points=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let mut numbers = lines.flat_map(|points| points.split([' ', ','])).filter_map(|it| it.parse::<f64>().ok());
        assert!(numbers.clone().count() > 500 && numbers.all(|number| (0.0..=900.0).contains(&number)), "{svg}");
        assert!(svg.contains("an outage of 20 s") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(timeline(&[]).is_err());
    }

    #[test]
    fn distributions_can_be_drawn_without_any() {
        let results = Results::new(Machine::look(), String::new());
        assert!(latencies(&results, "lan").unwrap().contains("echo beside 4 bulk dials"));
    }
}
