//! The areas of searches: circles and boxes around a position, and the cells of the grid that cover
//! them.

use super::geohash::{Degrees, GridCell, MOST_STEPS, Position};

/// The radius of the globe in metres, which is that of Redis.
const EARTH_RADIUS: f64 = 6_372_797.560_856;
/// Half the length of the equator on the map, in metres.
const MAP_RADIUS: f64 = 20_037_726.37;
const RADIANS_IN_DEGREE: f64 = std::f64::consts::PI / 180.0;

/// A unit of lengths.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LengthUnit {
    /// The unit in metres.
    pub metres: f64,
}

impl LengthUnit {
    /// One metre.
    pub const METRE: Self = Self { metres: 1.0 };

    /// The unit of a name in any case: `m`, `km`, `ft` or `mi`.
    pub fn named(name: &[u8]) -> Option<Self> {
        let units: [(&[u8], f64); 4] =
            [(b"m", 1.0), (b"km", 1000.0), (b"ft", 0.3048), (b"mi", 1609.34)];
        let unit = units.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name));
        unit.map(|(_, metres)| Self { metres: *metres })
    }
}

/// The shape of an area.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Shape {
    /// All within a distance.
    Circle {
        /// The distance.
        radius: f64,
    },
    /// All within half the width to the east and west, and half the height to the north and south.
    Box {
        /// The distance from west to east.
        width: f64,
        /// The distance from south to north.
        height: f64,
    },
}

/// An area to search. The lengths of the shape are not negative.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Area {
    /// The middle.
    pub center: Position,
    /// The shape.
    pub shape: Shape,
    /// The unit of the shape's lengths.
    pub unit: LengthUnit,
}

/// The distance between two positions in metres, on a sphere (haversine formula).
pub fn distance(one: &Position, other: &Position) -> f64 {
    let radians = |degrees: f64| degrees * RADIANS_IN_DEGREE;
    let east = ((radians(other.longitude) - radians(one.longitude)) / 2.0).sin();
    if east == 0.0 {
        return latitude_distance(one.latitude, other.latitude);
    }
    let (low, high) = (radians(one.latitude), radians(other.latitude));
    let north = ((high - low) / 2.0).sin();
    let square = north * north + low.cos() * high.cos() * east * east;
    // Rounding must not take the sine of opposite positions beyond 1.
    2.0 * EARTH_RADIUS * square.sqrt().min(1.0).asin()
}

/// The distance between two latitudes in metres.
fn latitude_distance(one: f64, other: f64) -> f64 {
    EARTH_RADIUS * (other * RADIANS_IN_DEGREE - one * RADIANS_IN_DEGREE).abs()
}

impl Area {
    /// The distance of a position from the middle in metres; `None` if the position is outside.
    pub fn distance_within(&self, position: &Position) -> Option<f64> {
        match self.shape {
            Shape::Circle { radius } => {
                let distance = distance(&self.center, position);
                (distance <= radius * self.unit.metres).then_some(distance)
            }
            Shape::Box { width, height } => {
                let (width, height) = (width * self.unit.metres, height * self.unit.metres);
                let (center, latitude) = (&self.center, position.latitude);
                if latitude_distance(latitude, center.latitude) > height / 2.0 {
                    return None;
                }
                let beside = Position { longitude: center.longitude, latitude };
                (distance(position, &beside) <= width / 2.0).then(|| distance(center, position))
            }
        }
    }

    /// The cells that cover the area, in the order in which Redis searches them: the one in the
    /// middle, north, south, east, west, north-east, north-west, south-east, south-west. Those that
    /// lie outside are left out, and so are those that are the same as the one before, in the
    /// largest areas.
    pub fn cells(&self) -> Vec<GridCell> {
        const AROUND: [(i32, i32); 8] =
            [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];
        let (longitudes, latitudes) = self.bounds();
        let mut steps = self.steps();
        let mut middle = GridCell::at(&self.center, steps);
        let is_beyond = middle.neighbor(0, 1).latitudes().high < latitudes.high
            || middle.neighbor(0, -1).latitudes().low > latitudes.low
            || middle.neighbor(1, 0).longitudes().high < longitudes.high
            || middle.neighbor(-1, 0).longitudes().low > longitudes.low;
        if is_beyond && steps > 1 {
            steps -= 1;
            middle = GridCell::at(&self.center, steps);
        }
        let (width, height) = (middle.longitudes(), middle.latitudes());
        let is_outside = |(east, north): (i32, i32)| {
            steps >= 2
                && (north < 0 && height.low < latitudes.low
                    || north > 0 && height.high > latitudes.high
                    || east < 0 && width.low < longitudes.low
                    || east > 0 && width.high > longitudes.high)
        };
        let mut cells = vec![middle];
        for (east, north) in AROUND.into_iter().filter(|around| !is_outside(*around)) {
            let cell = middle.neighbor(east, north);
            if cells.last() != Some(&cell) {
                cells.push(cell);
            }
        }
        cells
    }

    /// The longitudes and latitudes of a box around the area.
    fn bounds(&self) -> (Degrees, Degrees) {
        let Position { longitude, latitude } = self.center;
        let (east, north) = match self.shape {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let degrees = |metres: f64| metres / EARTH_RADIUS / RADIANS_IN_DEGREE;
        let north = degrees(self.unit.metres * north);
        // A degree of longitude is shorter the farther from the equator, as is taken into account
        // at the edge that is farther from it.
        let edge = if latitude < 0.0 { latitude - north } else { latitude + north };
        let east = self.unit.metres * east / EARTH_RADIUS / (edge * RADIANS_IN_DEGREE).cos();
        let east = east / RADIANS_IN_DEGREE;
        let around = |middle: f64, by: f64| Degrees { low: middle - by, high: middle + by };
        (around(longitude, east), around(latitude, north))
    }

    /// The steps of the smallest cells of which nine cover the area in most places.
    fn steps(&self) -> u32 {
        let radius = match self.shape {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
        };
        let mut radius = radius * self.unit.metres;
        if radius == 0.0 {
            return MOST_STEPS;
        }
        let mut steps = 1i32;
        while radius < MAP_RADIUS {
            radius *= 2.0;
            steps += 1;
        }
        // Cells become narrower towards the poles.
        let latitude = self.center.latitude.abs();
        steps -= 2 + i32::from(latitude > 66.0) + i32::from(latitude > 80.0);
        steps.clamp(1, MOST_STEPS.cast_signed()).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(longitude: f64, latitude: f64) -> Position {
        Position { longitude, latitude }
    }

    #[test]
    fn distances_are_those_of_redis() {
        let [palermo, catania] = [at(13.361_389, 38.115_556), at(15.087_269, 37.502_669)]
            .map(|place| Position::of_score(place.score()));
        assert_eq!(distance(&palermo, &catania), 166_274.151_569_600_33);
        assert_eq!(distance(&palermo, &palermo), 0.0);
        assert_eq!(distance(&at(5.0, 10.0), &at(5.0, -10.0)), latitude_distance(10.0, -10.0));
    }

    #[test]
    fn units_have_names_in_any_case() {
        assert_eq!(LengthUnit::named(b"Km"), Some(LengthUnit { metres: 1000.0 }));
        assert_eq!(LengthUnit::named(b"M"), Some(LengthUnit::METRE));
        assert_eq!(LengthUnit::named(b""), None);
        assert_eq!(LengthUnit::named(b"kmh"), None);
    }

    #[test]
    fn small_areas_have_few_cells() {
        let circle = |radius| Area {
            center: at(13.0, 38.0),
            shape: Shape::Circle { radius },
            unit: LengthUnit::METRE,
        };
        assert_eq!(circle(0.0).cells().len(), 1);
        // All cells of the first step, each once.
        assert_eq!(circle(1e8).cells().len(), 4);
        assert_eq!(circle(f64::INFINITY).cells().len(), 4);
        assert_eq!(circle(f64::MIN_POSITIVE).cells().len(), 1);
    }

    fn area() -> impl Strategy<Value = Area> {
        let length = prop_oneof![0.0..1e3, 0.0..1e6, 0.0..5e6];
        let unit = prop_oneof![Just(1.0), Just(0.3048), Just(1609.34)];
        let shape = prop_oneof![
            length.clone().prop_map(|radius| Shape::Circle { radius }),
            (length.clone(), length).prop_map(|(width, height)| Shape::Box { width, height }),
        ];
        // Where the box around an area reaches a pole or the date line, members beyond may be
        // missed, as in Redis.
        ((-90.0..90.0, -40.0..40.0), shape, unit).prop_map(
            |((longitude, latitude), shape, unit)| Area {
                center: at(longitude, latitude),
                shape,
                unit: LengthUnit { metres: unit },
            },
        )
    }

    proptest! {
        #[test]
        fn cells_cover_the_area(area in area(), east in -1.0..1.0, north in -1.0..1.0) {
            let (longitudes, latitudes) = area.bounds();
            let wide = (longitudes.high - longitudes.low) / 2.0;
            let high = (latitudes.high - latitudes.low) / 2.0;
            let center = &area.center;
            let place = at(center.longitude + wide * east, center.latitude + high * north);
            let read = Position::of_score(place.score());
            if place.is_valid() && area.distance_within(&read).is_some() {
                let is_within = |cell: &GridCell| {
                    let (first, end) = cell.scores();
                    (first..end).contains(&place.score())
                };
                prop_assert_eq!(area.cells().iter().filter(|cell| is_within(cell)).count(), 1);
            }
        }
    }
}
