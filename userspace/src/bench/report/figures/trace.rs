//! Values one after the other: rounds of a run, or runs of a history.

use super::super::{
    Subject,
    axis::Axis,
    series::{Point, Series},
    value, view,
};
use crate::report::plot::percent;
use serde::Serialize;

/// Small plots beside each other.
#[derive(Debug, Default, Serialize)]
pub(in super::super) struct Traces {
    /// What they show.
    pub(in super::super) caption: &'static str,
    /// What the kinds of dots are.
    pub(in super::super) legend: Vec<(&'static str, &'static str)>,
    pub(in super::super) all: Vec<Trace>,
}

/// One small plot; positions in percent.
#[derive(Debug, Serialize)]
pub(in super::super) struct Trace {
    pub(in super::super) title: String,
    /// Beside its upper and its lower end.
    pub(in super::super) ends: [String; 2],
    /// Below its left and its right end.
    pub(in super::super) below: [String; 2],
    pub(in super::super) dots: Vec<Dot>,
    /// Levels across the plot.
    pub(in super::super) levels: Vec<Across>,
}

#[derive(Debug, Serialize)]
pub(in super::super) struct Dot {
    pub(in super::super) x: String,
    pub(in super::super) y: String,
    /// Ends of its interval.
    pub(in super::super) ends: Option<[String; 2]>,
    pub(in super::super) class: &'static str,
    pub(in super::super) is_outlier: bool,
    pub(in super::super) says: String,
}

#[derive(Debug, Serialize)]
pub(in super::super) struct Across {
    pub(in super::super) y: String,
    pub(in super::super) class: &'static str,
}

/// Where one of so many lies, from left to right.
pub(in super::super) fn across(place: usize, of: usize) -> String {
    // Half a step is left free at both ends.
    percent((place as f64 + 0.5) / of.max(1) as f64)
}

/// How high a value lies; SVG counts from the top.
pub(in super::super) fn height(axis: Axis, v: f64) -> String {
    percent(1.0 - axis.position(v))
}

impl Traces {
    /// Of all rounds.
    pub(in super::super) fn of_rounds(subject: &Subject<'_>, series: &[Series]) -> Self {
        let mut legend = match subject.sides.len() {
            2 => vec![("before", "before"), ("after", "after")],
            _ => vec![("after", "round")],
        };
        if series.iter().flat_map(|one| &one.sides).flatten().any(|point| point.is_outlier) {
            legend.push(("far", "far from the others, and counted like them"));
        }
        Self {
            caption: "Each round in the order in which they ran; lines are medians. Both arms on one scale, of ratios \
                      logarithmic; a round without an answer lies at the top.",
            legend,
            all: series.iter().map(|one| of_series(subject, one)).collect(),
        }
    }
}

fn of_series(subject: &Subject<'_>, series: &Series) -> Trace {
    let axis = view::axis(series);
    let show = |v| value::of(series.metric, series.unit, v);
    let [low, high] = axis.ends().map(show);
    let points = || series.sides.iter().flatten();
    let number = points().map(|point| point.place + 1).max().unwrap_or(0);
    let class = |side: usize| if side + 1 < subject.sides.len() { "before" } else { "after" };
    let dot = |side: usize, point: &Point| Dot {
        x: across(point.place, number),
        y: height(axis, point.value),
        ends: None,
        class: class(side),
        is_outlier: point.is_outlier,
        says: format!(
            "round {} {}: {}{}",
            u64::from(point.block) + 1,
            subject.sides[side].name,
            show(point.value),
            if point.is_outlier { ", far from the others" } else { "" }
        ),
    };
    let of_side =
        |(side, points): (usize, &Vec<Point>)| points.iter().map(|p| dot(side, p)).collect::<Vec<_>>();
    let level = |side: usize| series.middle(side).map(|v| Across { y: height(axis, v), class: class(side) });
    Trace {
        title: value::title(&series.load, series.metric),
        ends: [high, low],
        below: ["first".to_owned(), format!("last of {number}")],
        dots: series.sides.iter().enumerate().flat_map(of_side).collect(),
        levels: (0..series.sides.len()).filter_map(level).collect(),
    }
}
