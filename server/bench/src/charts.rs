//! Line charts as SVG for light and dark color schemes.
//!
//! The drawing library emits fixed colors. Each color of the palette is therefore drawn as a unique
//! placeholder color, which a style sheet inside the SVG replaces according to the color scheme.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

const SIZE: (u32, u32) = (860, 380);
const FONT: &str = "sans-serif";
/// Layout of the legend in pixels: top of the first line, distance of lines, average width of a
/// letter.
const LEGEND: (i32, i32, i32) = (32, 18, 7);
/// A series with at most this many points marks each of them.
const FEW_POINTS: usize = 12;

/// Color in the light and in the dark scheme.
type SchemeColor = (&'static str, &'static str);

/// Colors of series. Neighbors differ in lightness too, for readers who cannot tell the hues.
const PALETTE: [SchemeColor; 8] = [
    ("#0b63b0", "#6cb6ff"),
    ("#c2410c", "#ff9f5a"),
    ("#15803d", "#5fd38a"),
    ("#7c3aed", "#c3a6ff"),
    ("#a16207", "#e8c25a"),
    ("#be185d", "#ff8ac0"),
    ("#0f766e", "#56d3c9"),
    ("#475569", "#a8b3c2"),
];
/// Colors of the grid, the text, and the shade of a checkpoint.
const GRID: SchemeColor = ("#dfe3e8", "#343a42");
const TEXT: SchemeColor = ("#39424e", "#c3cad3");
const SHADE: SchemeColor = ("#d5efe6", "#16382f");

/// Placeholder colors of the drawing, which differ from those of [`placeholder`].
const GRID_PLACEHOLDER: RGBColor = RGBColor(1, 0, 1);
const TEXT_PLACEHOLDER: RGBColor = RGBColor(1, 0, 2);
const SHADE_PLACEHOLDER: RGBColor = RGBColor(1, 0, 3);

/// Placeholder of a color of the palette.
fn placeholder(color: usize) -> RGBColor {
    RGBColor(2, 0, u8::try_from(color % PALETTE.len()).unwrap_or(0))
}

/// Scale of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Linear.
    Linear,
    /// Decimal logarithm; values below the range are drawn at its lower end.
    Log,
}

/// Axis of a chart.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Title of the axis.
    pub label: String,
    /// Scale of the axis.
    pub scale: Scale,
    /// Range in values; a logarithmic axis is extended to whole powers of ten.
    pub range: Range<f64>,
    /// Formats the value at a tick.
    pub format: fn(f64) -> String,
}

impl Axis {
    fn position(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(self.range.start).log10(),
        }
    }

    fn positions(&self) -> Range<f64> {
        match self.scale {
            Scale::Linear => self.range.clone(),
            Scale::Log => self.range.start.log10().floor()..self.range.end.log10().ceil(),
        }
    }

    fn label_of(&self, position: f64) -> String {
        match self.scale {
            Scale::Linear => (self.format)(position),
            Scale::Log if (position - position.round()).abs() > 0.01 => String::new(),
            Scale::Log => (self.format)(10_f64.powf(position)),
        }
    }

    fn labels(&self) -> usize {
        let positions = self.positions();
        match self.scale {
            Scale::Linear => 7,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few")]
            Scale::Log => (positions.end - positions.start) as usize + 1,
        }
    }
}

/// Series of points, drawn as a line or as dots.
#[derive(Debug, Clone)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Index into the palette, modulo its length.
    pub color: usize,
    /// Whether to draw dots instead of a line.
    pub dots: bool,
    /// Points as (x, y).
    pub points: Vec<(f64, f64)>,
}

/// Chart with one x and one y axis.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Line above the chart.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Shaded range of the x axis.
    pub shaded: Option<Range<f64>>,
    /// Strips at the bottom, one above the other: color and range of the x axis.
    pub strips: Vec<(usize, Range<f64>)>,
    /// Series, the first at the back.
    pub series: Vec<Series>,
}

/// Renders a chart as an SVG document.
///
/// # Errors
/// Returns the error of the drawing library.
pub fn svg(chart: &Chart) -> Result<String> {
    let mut drawn = String::new();
    draw(chart, &mut drawn).map_err(|error| anyhow!("cannot draw '{}': {error}", chart.title))?;
    let head_end = drawn.find("xmlns").ok_or_else(|| anyhow!("the drawing has no head"))?;
    let body = drawn[head_end..].find('>').ok_or_else(|| anyhow!("the drawing has no body"))?;
    drawn.insert_str(head_end + body + 1, &style());
    Ok(drawn)
}

fn draw(chart: &Chart, into: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(into, SIZE).into_drawing_area();
    let text = |size: u32| (FONT, size).into_font().color(&TEXT_PLACEHOLDER);
    root.draw(&Text::new(chart.title.clone(), (8, 6), text(17)))?;
    let foot = legend(chart, &root)?;
    let (x, y) = (&chart.x, &chart.y);
    let mut canvas = ChartBuilder::on(&root)
        .margin(10)
        .margin_right(34)
        .margin_top(u32::try_from(foot)? + 8)
        .x_label_area_size(46)
        .y_label_area_size(78)
        .build_cartesian_2d(x.positions(), y.positions())?;
    if let Some(range) = &chart.shaded {
        let (low, high) = (y.positions().start, y.positions().end);
        let corners = [(x.position(range.start), low), (x.position(range.end), high)];
        canvas.draw_series([Rectangle::new(corners, SHADE_PLACEHOLDER.filled())])?;
    }
    canvas
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID_PLACEHOLDER)
        .axis_style(GRID_PLACEHOLDER)
        .x_desc(x.label.as_str())
        .y_desc(y.label.as_str())
        .x_labels(x.labels().max(9))
        .y_labels(y.labels())
        .x_label_formatter(&|value| x.label_of(*value))
        .y_label_formatter(&|value| y.label_of(*value))
        .label_style(text(13))
        .axis_desc_style(text(14))
        .draw()?;
    for series in &chart.series {
        let color = placeholder(series.color);
        let points = || series.points.iter().map(|(a, b)| (x.position(*a), y.position(*b)));
        let few = series.points.len() <= FEW_POINTS;
        if !series.dots {
            canvas.draw_series(LineSeries::new(points(), color.stroke_width(2)))?;
        } else if few {
            canvas.draw_series(points().map(|p| TriangleMarker::new(p, 6, color.filled())))?;
        }
        if few != series.dots {
            let radius = if few { 3 } else { 2 };
            canvas.draw_series(points().map(|p| Circle::new(p, radius, color.filled())))?;
        }
    }
    let (low, high) = (y.positions().start, y.positions().end);
    for (step, (color, range)) in chart.strips.iter().rev().enumerate() {
        let bottom = low + (high - low) * (0.01 + 0.024 * step as f64);
        let corners = [
            (x.position(range.start), bottom),
            (x.position(range.end), bottom + (high - low) * 0.014),
        ];
        canvas.draw_series([Rectangle::new(corners, placeholder(*color).filled())])?;
    }
    root.present()?;
    Ok(())
}

/// Draws the names of the series, as many per line as fit; returns the bottom of the last line.
fn legend(
    chart: &Chart,
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<i32, Box<dyn std::error::Error>> {
    let (mut left, mut top) = (8, LEGEND.0);
    for series in &chart.series {
        let width = 34 + i32::try_from(series.name.chars().count())? * LEGEND.2;
        if left + width > i32::try_from(SIZE.0)? && left > 8 {
            (left, top) = (8, top + LEGEND.1);
        }
        let font = (FONT, 14).into_font().color(&placeholder(series.color));
        let few = series.points.len() <= FEW_POINTS;
        let mark = match (series.dots, few) {
            (false, _) => "\u{2014}",
            (true, true) => "\u{25b2}",
            (true, false) => "\u{2022}",
        };
        root.draw(&Text::new(format!("{mark} {}", series.name), (left, top), font))?;
        left += width;
    }
    Ok(top + LEGEND.1)
}

/// Style sheet that replaces the placeholders.
fn style() -> String {
    let hex = |color: RGBColor| format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2);
    let mut colors = vec![
        (hex(GRID_PLACEHOLDER), GRID),
        (hex(TEXT_PLACEHOLDER), TEXT),
        (hex(SHADE_PLACEHOLDER), SHADE),
    ];
    let palette = PALETTE.iter().enumerate();
    colors.extend(palette.map(|(index, color)| (hex(placeholder(index)), *color)));
    let rules = |scheme: fn(&SchemeColor) -> &'static str| {
        let rule = |(hex, color): &(String, SchemeColor)| {
            let color = scheme(color);
            format!("[fill='{hex}' i]{{fill:{color}}}[stroke='{hex}' i]{{stroke:{color}}}")
        };
        colors.iter().map(rule).collect::<String>()
    };
    let (light, dark) = (rules(|color| color.0), rules(|color| color.1));
    format!(
        "<style>text{{font-family:system-ui,sans-serif}}{light}\
         @media (prefers-color-scheme:dark){{{dark}}}</style>"
    )
}

/// Formats microseconds for an axis: `10 ms`.
pub fn microseconds(value: f64) -> String {
    if value >= 1e6 {
        format!("{} s", value / 1e6)
    } else if value >= 1e3 {
        format!("{} ms", value / 1e3)
    } else {
        format!("{value} \u{b5}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let axis = |label: &str, scale, range| Axis {
            label: label.to_owned(),
            scale,
            range,
            format: microseconds,
        };
        let points = (0..50).map(|i| (f64::from(i), 10_f64.powi(i % 4 + 1))).collect();
        Chart {
            title: "Latency & <more>".to_owned(),
            x: axis("seconds", Scale::Linear, 0.0..50.0),
            y: axis("latency", Scale::Log, 10.0..100_000.0),
            shaded: Some(10.0..20.0),
            strips: vec![(1, 10.0..20.0)],
            series: vec![Series { name: "p99".to_owned(), color: 1, dots: false, points }],
        }
    }

    #[test]
    fn a_chart_is_one_svg_with_style_line_and_shade() {
        let svg = svg(&chart()).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(svg.matches("<style>").count(), 1);
        assert!(svg.contains("prefers-color-scheme:dark"));
        assert!(svg.contains("Latency &amp; &lt;more&gt;"), "text is escaped");
        assert!(svg.contains("stroke=\"#020001\"") && svg.contains("fill=\"#010003\""), "{svg}");
        for label in ["10 \u{b5}s", "1 ms", "100 ms"] {
            assert!(svg.contains(label), "{label}: {svg}");
        }
        assert!(!svg.contains("http://") || svg.matches("http").count() == 1, "no outside host");
    }

    #[test]
    fn a_long_legend_has_several_lines() {
        let mut chart = chart();
        let one = svg(&chart).unwrap();
        let name = "a name of some length".to_owned();
        chart.series = vec![Series { name, ..chart.series[0].clone() }; 8];
        let many = svg(&chart).unwrap();
        let second_line = format!("y=\"{}\"", LEGEND.0 + LEGEND.1);
        let rows = |svg: &str| svg.matches("a name of some length").count();
        assert_eq!((rows(&one), rows(&many)), (0, 8));
        assert_ne!(one.contains(&second_line), many.contains(&second_line), "{many}");
    }

    #[test]
    fn a_logarithmic_axis_covers_whole_powers_of_ten() {
        let axis = chart().y;
        assert_eq!(axis.positions(), 1.0..5.0);
        assert_eq!((axis.position(1000.0), axis.position(0.0)), (3.0, 1.0));
        assert_eq!(axis.label_of(2.5), "");
    }
}
