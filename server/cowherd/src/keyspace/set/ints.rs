//! Numbers in ascending order, all of one width: binary search, no overhead.

use crate::keyspace::entry::Shape;

/// The narrowest form that holds a number: 1, 2 and 3 are those of 2, 4 and 8 bytes.
#[inline]
pub(super) fn form_for(number: i64) -> u8 {
    match (i16::try_from(number), i32::try_from(number)) {
        (Ok(_), _) => 1,
        (_, Ok(_)) => 2,
        _ => 3,
    }
}

/// Bytes of each number in a form.
#[inline]
pub(super) const fn width(form: u8) -> usize {
    1 << form
}

/// Numbers in the bytes of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ints<'b> {
    bytes: &'b [u8],
    width: usize,
}

impl<'b> Ints<'b> {
    /// The numbers of a compact entry.
    #[inline]
    pub fn of(shape: &Shape, bytes: &'b [u8]) -> Self {
        Self::new(shape.form, bytes)
    }

    /// Numbers in a form.
    #[inline]
    pub const fn new(form: u8, bytes: &'b [u8]) -> Self {
        Self { bytes, width: width(form) }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.bytes.len() / self.width
    }

    /// Number `i`.
    ///
    /// # Panics
    /// There are not so many.
    #[inline]
    pub fn get(&self, i: usize) -> i64 {
        let from = i * self.width;
        let mut wide = [0; 8];
        wide[8 - self.width..].copy_from_slice(&self.bytes[from..from + self.width]);
        i64::from_le_bytes(wide) >> (64 - 8 * self.width)
    }

    /// Where a number is, or where it would be.
    #[inline]
    pub fn find(&self, number: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.get(middle).cmp(&number) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = i64> + 'b {
        (0..self.len()).map(move |i| self.get(i))
    }

    /// Checks the bytes of a value of so many numbers.
    pub fn check(&self, count: u64) -> Result<(), String> {
        if self.bytes.len() as u64 != count * self.width as u64 {
            return Err(format!("{count} numbers in {} bytes", self.bytes.len()));
        }
        match (1..self.len()).find(|i| self.get(i - 1) >= self.get(*i)) {
            Some(i) => Err(format!("number {i} is not above the one before it")),
            None => Ok(()),
        }
    }
}

/// Appends numbers in a form that holds them all.
pub(super) fn write(bytes: &mut Vec<u8>, form: u8, numbers: impl Iterator<Item = i64>) {
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes()[..width(form)]);
    }
}
