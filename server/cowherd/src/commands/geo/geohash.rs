//! Geohashes: positions on the globe as cells of a grid, and cells as the scores of a sorted set.
//!
//! The plane of longitudes and latitudes is halved alternately in both directions. After `steps`
//! halvings of each, a cell has a number of `steps` bits in each direction; the bits of both
//! interleaved are the cell's *code*, that of the latitude in the lowest bit. The cells within a
//! larger cell have consecutive codes. A member's score is the code of its cell after 26 steps, 52
//! bits, which a double holds exactly.

/// Halvings of the cells that scores stand for.
pub const MOST_STEPS: u32 = 26;

/// A point on the globe, in degrees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Position {
    /// East of Greenwich; west is negative.
    pub longitude: f64,
    /// North of the equator; south is negative.
    pub latitude: f64,
}

/// An interval of degrees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Degrees {
    /// The lower bound.
    pub low: f64,
    /// The upper bound.
    pub high: f64,
}

const LONGITUDES: Degrees = Degrees { low: -180.0, high: 180.0 };
/// The latitudes of the square map of Web Mercator (EPSG:3857).
const LATITUDES: Degrees = Degrees { low: -85.051_128_78, high: 85.051_128_78 };
/// The latitudes of geohashes as other programs write them.
const ALL_LATITUDES: Degrees = Degrees { low: -90.0, high: 90.0 };

impl Degrees {
    const fn contains(self, degrees: f64) -> bool {
        self.low <= degrees && degrees <= self.high
    }

    /// The number of the part that contains `degrees`, after some halvings. The upper bound is in a
    /// part of its own behind the last one, as in Redis.
    fn part(self, degrees: f64, steps: u32) -> u32 {
        let share = (degrees - self.low) / (self.high - self.low);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "2^26 at most")]
        let part = (share * f64::from(1u32 << steps)) as u32;
        part
    }

    /// The bounds of a part.
    fn bounds(self, part: u32, steps: u32) -> Self {
        let (width, parts) = (self.high - self.low, f64::from(1u32 << steps));
        let bound = |part: u32| self.low + f64::from(part) / parts * width;
        Self { low: bound(part), high: bound(part.wrapping_add(1)) }
    }

    fn middle(self) -> f64 {
        (self.low + self.high) / 2.0
    }
}

impl Position {
    /// Whether the position is on the map.
    pub const fn is_valid(&self) -> bool {
        LONGITUDES.contains(self.longitude) && LATITUDES.contains(self.latitude)
    }

    /// The score of a member at this position.
    pub fn score(&self) -> f64 {
        GridCell::at(self, MOST_STEPS).code() as f64
    }

    /// The position of a member: the middle of its cell. A score that no position has is read as
    /// Redis on x86-64 does.
    pub fn of_score(score: f64) -> Self {
        let cell = GridCell::from_code(code_of(score), MOST_STEPS);
        let (longitude, latitude) = (cell.longitudes().middle(), cell.latitudes().middle());
        Self {
            longitude: longitude.clamp(LONGITUDES.low, LONGITUDES.high),
            latitude: latitude.clamp(LATITUDES.low, LATITUDES.high),
        }
    }

    /// The geohash as other programs write it: eleven digits of base 32.
    pub fn text(&self) -> [u8; 11] {
        const DIGITS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        const CODE_BITS: usize = 2 * MOST_STEPS as usize;
        let code = GridCell {
            longitude: LONGITUDES.part(self.longitude, MOST_STEPS),
            latitude: ALL_LATITUDES.part(self.latitude, MOST_STEPS),
            steps: MOST_STEPS,
        }
        .code();
        // The code has too few bits for the last digit, which is 0.
        std::array::from_fn(|i| match CODE_BITS.checked_sub(5 * (i + 1)) {
            Some(shift) => DIGITS[usize::from((code >> shift).to_le_bytes()[0] & 31)],
            None => DIGITS[0],
        })
    }
}

/// A score as an integer, as x86-64 converts it: modulo 2^64 where that is possible.
fn code_of(score: f64) -> u64 {
    const HALF: f64 = (1u64 << 63) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "out of range becomes the least integer")]
    let signed = |score: f64| if score < HALF { score as i64 } else { i64::MIN };
    if score < HALF {
        signed(score).cast_unsigned()
    } else {
        signed(score - HALF).cast_unsigned() ^ 1 << 63
    }
}

/// A cell of the grid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GridCell {
    longitude: u32,
    latitude: u32,
    steps: u32,
}

impl GridCell {
    /// The cell of a position after 1 to 26 steps.
    pub fn at(position: &Position, steps: u32) -> Self {
        debug_assert!((1..=MOST_STEPS).contains(&steps));
        Self {
            longitude: LONGITUDES.part(position.longitude, steps),
            latitude: LATITUDES.part(position.latitude, steps),
            steps,
        }
    }

    fn from_code(code: u64, steps: u32) -> Self {
        Self { longitude: even_bits(code >> 1), latitude: even_bits(code), steps }
    }

    fn code(&self) -> u64 {
        spread(self.longitude) << 1 | spread(self.latitude)
    }

    /// The longitudes of the cell.
    pub fn longitudes(&self) -> Degrees {
        LONGITUDES.bounds(self.longitude, self.steps)
    }

    /// The latitudes of the cell.
    pub fn latitudes(&self) -> Degrees {
        LATITUDES.bounds(self.latitude, self.steps)
    }

    /// The cell that is so many cells farther east and north; beyond an edge of the map the cells
    /// of the opposite edge follow.
    pub fn neighbor(&self, east: i32, north: i32) -> Self {
        let moved = |part: u32, by: i32| match by {
            0 => part,
            _ => part.wrapping_add_signed(by) & ((1 << self.steps) - 1),
        };
        Self {
            longitude: moved(self.longitude, east),
            latitude: moved(self.latitude, north),
            steps: self.steps,
        }
    }

    /// The scores of the members in the cell: from the first value to below the second.
    pub fn scores(&self) -> (f64, f64) {
        let shift = 2 * (MOST_STEPS - self.steps);
        let score = |code: u64| (code << shift) as f64;
        (score(self.code()), score(self.code() + 1))
    }
}

/// The steps of spreading bits: a shift, and the bits that are kept after it.
const SPREADING: [(u32, u64); 5] = [
    (16, 0x0000_ffff_0000_ffff),
    (8, 0x00ff_00ff_00ff_00ff),
    (4, 0x0f0f_0f0f_0f0f_0f0f),
    (2, 0x3333_3333_3333_3333),
    (1, 0x5555_5555_5555_5555),
];

/// Moves the bits to the even places.
fn spread(bits: u32) -> u64 {
    SPREADING.iter().fold(u64::from(bits), |bits, (shift, kept)| (bits | bits << shift) & kept)
}

/// The bits at the even places.
fn even_bits(bits: u64) -> u32 {
    let mut bits = bits & SPREADING[4].1;
    for i in (0..SPREADING.len()).rev() {
        let kept = if i == 0 { u32::MAX.into() } else { SPREADING[i - 1].1 };
        bits = (bits | bits >> SPREADING[i].0) & kept;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the last step keeps 32 bits")]
    let bits = bits as u32;
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PALERMO: Position = Position { longitude: 13.361_389, latitude: 38.115_556 };

    #[test]
    fn scores_are_those_of_redis() {
        // By GEOADD and ZSCORE, GEOPOS, GEOHASH of redis-server 7.0.15.
        assert_eq!(PALERMO.score(), 3_479_099_956_230_698.0);
        let read = Position::of_score(PALERMO.score());
        assert_eq!(format!("{:.17}", read.longitude), "13.36138933897018433");
        assert_eq!(format!("{:.17}", read.latitude), "38.11555639549629859");
        assert_eq!(&read.text(), b"sqc8b49rny0");
    }

    #[test]
    fn the_edges_of_the_map_are_on_it() {
        let corner = |longitude, latitude| Position { longitude, latitude };
        let (east, north) = (LONGITUDES.high, LATITUDES.high);
        let first = Position::of_score(corner(-east, -north).score());
        assert!(first.is_valid() && first.latitude < -85.05 && first.longitude < -179.99);
        let last = corner(east, north);
        assert_eq!(Position::of_score(last.score()), last);
        assert!(!corner(180.000_001, 0.0).is_valid() && !corner(0.0, -85.06).is_valid());
        assert!(!corner(f64::INFINITY, 0.0).is_valid() && !corner(0.0, f64::NAN).is_valid());
    }

    #[test]
    fn any_score_is_a_position() {
        // By ZADD and GEOHASH of redis-server 7.0.15 on x86-64.
        for (score, text) in [
            (-1.0, b"bp05b5048p0"),
            (-5e300, b"00bh0hbj200"),
            (1e300, b"00bh0hbj200"),
            (f64::INFINITY, b"00bh0hbj200"),
            (f64::NEG_INFINITY, b"00bh0hbj200"),
            (4_503_599_627_370_496.5, b"bp05b5048p0"),
            (1.5, b"00bh0hbj210"),
        ] {
            assert_eq!(&Position::of_score(score).text(), text, "{score}");
        }
    }

    #[test]
    fn neighbors_go_round_the_map() {
        let cell = GridCell { longitude: 7, latitude: 0, steps: 3 };
        assert_eq!(cell.neighbor(1, -1), GridCell { longitude: 0, latitude: 7, steps: 3 });
        assert_eq!(cell.neighbor(-1, 1), GridCell { longitude: 6, latitude: 1, steps: 3 });
        let (first, end) = cell.scores();
        assert_eq!(end - first, (1u64 << 46) as f64);
    }

    fn position() -> impl Strategy<Value = Position> {
        (-180.0..=180.0, LATITUDES.low..=LATITUDES.high)
            .prop_map(|(longitude, latitude)| Position { longitude, latitude })
    }

    proptest! {
        #[test]
        fn codes_are_read_back(longitude: u32, latitude: u32) {
            let cell = GridCell { longitude, latitude, steps: 26 };
            prop_assert_eq!(GridCell::from_code(cell.code(), 26), cell);
        }

        #[test]
        fn a_position_is_in_its_cells(position in position(), steps in 1..=MOST_STEPS) {
            let cell = GridCell::at(&position, steps);
            let (first, end) = cell.scores();
            prop_assert!((first..end).contains(&position.score()));
            let read = Position::of_score(position.score());
            prop_assert!(read.is_valid());
            prop_assert!((read.longitude - position.longitude).abs() < 6e-6);
            prop_assert!((read.latitude - position.latitude).abs() < 3e-6);
            prop_assert_eq!(read.score(), position.score());
        }
    }
}
