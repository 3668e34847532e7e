//! Curves as SVG, both axes logarithmic.

use std::fmt::Write;

/// One line of a plot.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot without its curves.
pub(crate) struct Plot {
    pub(crate) title: &'static str,
    pub(crate) across: &'static str,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 5] = ["#0b6e99", "#c2571a", "#3d7a3d", "#8a4fa3", "#777777"];

impl Plot {
    pub(crate) fn draw(&self, curves: &[Curve]) -> String {
        let all = || curves.iter().flat_map(|curve| curve.points.iter());
        let x = Axis::over(all().map(|point| point.0));
        let y = Axis::over(all().map(|point| point.1));
        let at_x = |value: f64| LEFT + x.place(value) * (WIDTH - LEFT - RIGHT);
        let at_y = |value: f64| HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' \
             font-family='sans-serif' font-size='13'>\n<rect width='100%' height='100%' fill='white'/>\n\
             <text x='{LEFT}' y='24' font-size='16'>{}</text>\n",
            self.title
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in x.decades() {
            let at = at_x(tick);
            line(&mut svg, (at, TOP), (at, bottom));
            text(&mut svg, (at, bottom + 18.0), "middle", &tick.to_string());
        }
        for tick in y.decades() {
            for step in [1.0, 2.0, 5.0].map(|step| tick * step).into_iter().filter(|v| y.holds(*v))
            {
                line(&mut svg, (LEFT, at_y(step)), (right, at_y(step)));
                text(&mut svg, (LEFT - 6.0, at_y(step) + 4.0), "end", &step.to_string());
            }
        }
        text(&mut svg, ((LEFT + right) / 2.0, HEIGHT - 12.0), "middle", self.across);
        for (n, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let mut points = String::new();
            for (px, py) in &curve.points {
                let _ = write!(points, "{:.1},{:.1} ", at_x(*px), at_y(*py));
            }
            let height = TOP + 14.0 + 20.0 * n as f64;
            let _ = writeln!(
                svg,
                "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2'/>\n\
                 <rect x='{}' y='{}' width='12' height='12' fill='{colour}'/>",
                points.trim_end(),
                right + 14.0,
                height - 11.0
            );
            text(&mut svg, (right + 32.0, height), "start", curve.name);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1='{:.1}' y1='{:.1}' x2='{:.1}' y2='{:.1}' stroke='#dddddd'/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    let _ =
        writeln!(svg, "<text x='{:.1}' y='{:.1}' text-anchor='{anchor}'>{text}</text>", at.0, at.1);
}

/// A logarithmic axis, from 0 to 1 over its values.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        Self { low, high: values.fold(low * 1.01, f64::max) }
    }

    fn place(&self, value: f64) -> f64 {
        (value / self.low).log10() / (self.high / self.low).log10()
    }

    fn holds(&self, value: f64) -> bool {
        value >= self.low * 0.999 && value <= self.high * 1.001
    }

    /// The powers of ten from just below the lowest value to the highest.
    fn decades(&self) -> impl Iterator<Item = f64> {
        let first = self.low.log10().floor();
        let last = self.high;
        (0..20)
            .map(move |n| 10_f64.powf(first + f64::from(n)))
            .take_while(move |tick| *tick <= last * 1.001)
    }
}
