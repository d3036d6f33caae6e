//! Unsigned integers of any size, with the operations that parsing and printing of floating-point
//! numbers need.

/// An unsigned integer in limbs of 64 bits, the lowest first, without leading zero limbs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct BigUint(Vec<u64>);

/// The largest power of ten that fits a limb, and its exponent.
const TEN_POWER: (u64, usize) = (10_000_000_000_000_000_000, 19);

impl From<u64> for BigUint {
    fn from(number: u64) -> Self {
        let mut big = Self(vec![number]);
        big.trim();
        big
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half and the carry")]
const fn split(wide: u128) -> (u64, u64) {
    (wide as u64, (wide >> 64) as u64)
}

impl BigUint {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    pub fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of bits without leading zeros.
    pub fn width(&self) -> i64 {
        let top = self.0.last().map_or(0, |limb| 64 - i64::from(limb.leading_zeros()));
        top + 64 * (self.0.len() as i64 - 1).max(0)
    }

    /// Multiplies by `by` and adds `more`.
    pub fn multiply_add(&mut self, by: u64, more: u64) {
        let mut carry = more;
        for limb in &mut self.0 {
            (*limb, carry) = split(u128::from(*limb) * u128::from(by) + u128::from(carry));
        }
        if carry > 0 {
            self.0.push(carry);
        }
    }

    /// Multiplies by ten to the power of `power`.
    pub fn times_power_of_ten(&mut self, mut power: u64) {
        while power > 0 {
            let step = power.min(TEN_POWER.1 as u64);
            self.multiply_add((0..step).fold(1, |product, _| product * 10), 0);
            power -= step;
        }
    }

    /// Multiplies by two to the power of `by`.
    pub fn shift(&mut self, by: u64) {
        if self.is_zero() {
            return;
        }
        let (limbs, bits) = (usize::try_from(by / 64).unwrap_or(usize::MAX), by % 64);
        if bits > 0 {
            self.multiply_add(1 << bits, 0);
        }
        self.0.splice(0..0, std::iter::repeat_n(0, limbs));
    }

    /// Subtracts `other` unless it is larger; returns whether it was subtracted.
    pub fn subtract_if_fits(&mut self, other: &Self) -> bool {
        if self.0.len() < other.0.len()
            || self.0.len() == other.0.len() && self.0.iter().rev().lt(other.0.iter().rev())
        {
            return false;
        }
        let mut borrow = false;
        for (i, limb) in self.0.iter_mut().enumerate() {
            let (less, first) = limb.overflowing_sub(other.0.get(i).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (less, first | second);
        }
        self.trim();
        true
    }

    /// The decimal digits.
    pub fn text(mut self) -> String {
        // Groups of 19 digits, the last one first.
        let mut groups = Vec::new();
        while !self.is_zero() {
            let mut rest = 0u64;
            for limb in self.0.iter_mut().rev() {
                let wide = u128::from(rest) << 64 | u128::from(*limb);
                (*limb, _) = split(wide / u128::from(TEN_POWER.0));
                (rest, _) = split(wide % u128::from(TEN_POWER.0));
            }
            groups.push(rest);
            self.trim();
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        for group in groups.iter().rev() {
            text.push_str(&format!("{group:0width$}", width = TEN_POWER.1));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic() {
        let mut big = BigUint::from(1);
        big.times_power_of_ten(40);
        assert_eq!(big.clone().text(), format!("1{}", "0".repeat(40)));
        assert_eq!(big.width(), 133);
        big.multiply_add(3, 7);
        assert_eq!(big.clone().text(), format!("3{}7", "0".repeat(39)));
        let mut two = BigUint::from(2);
        two.shift(128);
        assert_eq!(two.clone().text(), "680564733841876926926749214863536422912");
        assert!(!two.subtract_if_fits(&big));
        let mut less = two.clone();
        assert!(less.subtract_if_fits(&BigUint::from(1)));
        assert_eq!(less.clone().text(), "680564733841876926926749214863536422911");
        assert!(two.subtract_if_fits(&less));
        assert_eq!(two, BigUint::from(1));
        assert!(two.subtract_if_fits(&BigUint::from(1)) && two.is_zero());
        assert_eq!((two.width(), two.text().as_str()), (0, "0"));
    }
}
