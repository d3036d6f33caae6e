//! Line charts as SVG, readable by day and by night.
//!
//! The drawing library writes fixed colours. Each ink is drawn in a colour of its own, and a style
//! sheet inside the SVG gives that colour its look for a light or a dark surface.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

const SIZE: (u32, u32) = (860, 380);
const FONT: &str = "sans-serif";
/// Where the first line of the legend stands, how far the next is below it, and how wide a letter
/// is, about.
const LEGEND: (i32, i32, i32) = (32, 18, 7);
/// A line with no more points than this shows each of them.
const FEW_POINTS: usize = 12;

/// The colours of lines by day and by night; each can be told from its neighbours without hue.
const INKS: [(&str, &str); 8] = [
    ("#0b63b0", "#6cb6ff"),
    ("#c2410c", "#ff9f5a"),
    ("#15803d", "#5fd38a"),
    ("#7c3aed", "#c3a6ff"),
    ("#a16207", "#e8c25a"),
    ("#be185d", "#ff8ac0"),
    ("#0f766e", "#56d3c9"),
    ("#475569", "#a8b3c2"),
];
/// What is no line: the grid, the text, the shade of a save.
const GRID: (&str, &str) = ("#dfe3e8", "#343a42");
const TEXT: (&str, &str) = ("#39424e", "#c3cad3");
const SHADE: (&str, &str) = ("#d5efe6", "#16382f");

/// The colours that stand for them in the drawing.
const GRID_SIGN: RGBColor = RGBColor(1, 0, 1);
const TEXT_SIGN: RGBColor = RGBColor(1, 0, 2);
const SHADE_SIGN: RGBColor = RGBColor(1, 0, 3);

fn ink_sign(ink: usize) -> RGBColor {
    RGBColor(2, 0, u8::try_from(ink % INKS.len()).unwrap_or(0))
}

/// How values lie on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As they are.
    Linear,
    /// Each tenfold as wide as the next; values below the range are drawn at its edge.
    Log,
}

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// How values lie on it.
    pub scale: Scale,
    /// From where to where, in its values; a logarithmic one covers whole tenfolds.
    pub range: Range<f64>,
    /// A value as people read it.
    pub format: fn(f64) -> String,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(self.range.start).log10(),
        }
    }

    fn placed(&self) -> Range<f64> {
        match self.scale {
            Scale::Linear => self.range.clone(),
            Scale::Log => self.range.start.log10().floor()..self.range.end.log10().ceil(),
        }
    }

    fn label_of(&self, place: f64) -> String {
        match self.scale {
            Scale::Linear => (self.format)(place),
            Scale::Log if (place - place.round()).abs() > 0.01 => String::new(),
            Scale::Log => (self.format)(10_f64.powf(place)),
        }
    }

    fn labels(&self) -> usize {
        let placed = self.placed();
        match self.scale {
            Scale::Linear => 7,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few")]
            Scale::Log => (placed.end - placed.start) as usize + 1,
        }
    }
}

/// A line, or dots.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Which ink, counted from 0.
    pub ink: usize,
    /// Dots instead of a line.
    pub dots: bool,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// One line above it.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// From where to where on the x axis something is shaded.
    pub shaded: Option<Range<f64>>,
    /// Strips at the foot, one above the other, in an ink and from where to where on the x axis.
    pub strips: Vec<(usize, Range<f64>)>,
    /// What is drawn, the first at the bottom.
    pub series: Vec<Series>,
}

/// Draws it as a whole SVG document.
///
/// # Errors
/// When the drawing library gives up; it says why.
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
    let text = |size: u32| (FONT, size).into_font().color(&TEXT_SIGN);
    root.draw(&Text::new(chart.title.clone(), (8, 6), text(17)))?;
    let foot = legend(chart, &root)?;
    let (x, y) = (&chart.x, &chart.y);
    let mut canvas = ChartBuilder::on(&root)
        .margin(10)
        .margin_right(34)
        .margin_top(u32::try_from(foot)? + 8)
        .x_label_area_size(46)
        .y_label_area_size(78)
        .build_cartesian_2d(x.placed(), y.placed())?;
    if let Some(range) = &chart.shaded {
        let (low, high) = (y.placed().start, y.placed().end);
        let corners = [(x.place(range.start), low), (x.place(range.end), high)];
        canvas.draw_series([Rectangle::new(corners, SHADE_SIGN.filled())])?;
    }
    canvas
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID_SIGN)
        .axis_style(GRID_SIGN)
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
        let sign = ink_sign(series.ink);
        let points = || series.points.iter().map(|(a, b)| (x.place(*a), y.place(*b)));
        let few = series.points.len() <= FEW_POINTS;
        if !series.dots {
            canvas.draw_series(LineSeries::new(points(), sign.stroke_width(2)))?;
        } else if few {
            canvas.draw_series(points().map(|p| TriangleMarker::new(p, 6, sign.filled())))?;
        }
        if few != series.dots {
            let radius = if few { 3 } else { 2 };
            canvas.draw_series(points().map(|p| Circle::new(p, radius, sign.filled())))?;
        }
    }
    let (low, high) = (y.placed().start, y.placed().end);
    for (step, (ink, range)) in chart.strips.iter().rev().enumerate() {
        let bottom = low + (high - low) * (0.01 + 0.024 * step as f64);
        let corners =
            [(x.place(range.start), bottom), (x.place(range.end), bottom + (high - low) * 0.014)];
        canvas.draw_series([Rectangle::new(corners, ink_sign(*ink).filled())])?;
    }
    root.present()?;
    Ok(())
}

/// Draws the names of the series, as many in a line as find room; where the last line ends.
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
        let font = (FONT, 14).into_font().color(&ink_sign(series.ink));
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

/// The looks of all signs, by day and by night.
fn style() -> String {
    let hex = |sign: RGBColor| format!("#{:02X}{:02X}{:02X}", sign.0, sign.1, sign.2);
    let mut signs = vec![(hex(GRID_SIGN), GRID), (hex(TEXT_SIGN), TEXT), (hex(SHADE_SIGN), SHADE)];
    signs.extend(INKS.iter().enumerate().map(|(ink, looks)| (hex(ink_sign(ink)), *looks)));
    let rules = |look: fn(&(&'static str, &'static str)) -> &'static str| {
        let rule = |(sign, looks): &(String, (&'static str, &'static str))| {
            let colour = look(looks);
            format!("[fill='{sign}' i]{{fill:{colour}}}[stroke='{sign}' i]{{stroke:{colour}}}")
        };
        signs.iter().map(rule).collect::<String>()
    };
    let (day, night) = (rules(|looks| looks.0), rules(|looks| looks.1));
    format!(
        "<style>text{{font-family:system-ui,sans-serif}}{day}\
         @media (prefers-color-scheme:dark){{{night}}}</style>"
    )
}

/// Microseconds as people read them on an axis: `10 ms`.
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
            series: vec![Series { name: "p99".to_owned(), ink: 1, dots: false, points }],
        }
    }

    #[test]
    fn a_chart_is_one_well_formed_svg_with_its_style_line_and_shade() {
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
    fn a_legend_takes_as_many_lines_as_it_needs() {
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
    fn a_logarithmic_axis_covers_whole_tenfolds() {
        let axis = chart().y;
        assert_eq!(axis.placed(), 1.0..5.0);
        assert_eq!((axis.place(1000.0), axis.place(0.0)), (3.0, 1.0));
        assert_eq!(axis.label_of(2.5), "");
    }
}
