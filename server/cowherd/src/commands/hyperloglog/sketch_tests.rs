use super::*;
use proptest::prelude::*;

/// A step: a register and a rank, rarely one that needs the dense encoding.
fn step() -> impl Strategy<Value = (usize, u8)> {
    let rank = prop_oneof![8 => 1..6u8, 4 => 1..=32u8, 1 => 33..=51u8];
    let register = prop_oneof![3 => 0..REGISTERS, 3 => 0..40usize, 1 => REGISTERS - 40..REGISTERS];
    (register, rank)
}

fn ranks_of(sketch: &Sketch) -> Vec<u8> {
    let mut ranks = vec![0; REGISTERS];
    let registers = SketchRegisters::of(sketch.as_bytes()).expect("a sketch");
    registers.merge_into(&mut ranks).expect("a sound sketch");
    let estimate = registers.estimate().expect("a sound sketch");
    assert_eq!(estimate, estimate_ranks(&ranks));
    ranks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn sketches_are_lists_of_ranks(
        steps in prop::collection::vec(step(), 1..400),
        limit in prop_oneof![Just(0u64), Just(40), Just(200), Just(3000)],
    ) {
        let (mut sketch, mut ranks) = (Sketch::new(), vec![0; REGISTERS]);
        for (register, rank) in steps {
            let is_raised = ranks[register] < rank;
            prop_assert_eq!(sketch.raise(register, rank, limit), Ok(is_raised));
            ranks[register] = rank.max(ranks[register]);
            let read = SketchRegisters::of(sketch.as_bytes()).expect("a sketch").rank(register);
            prop_assert_eq!(read, Ok(ranks[register]));
            prop_assert!(sketch.is_dense() || sketch.as_bytes().len() as u64 <= limit.max(20));
        }
        prop_assert_eq!(&ranks_of(&sketch), &ranks);
        sketch.make_dense().expect("a sound sketch");
        prop_assert_eq!(&ranks_of(&sketch), &ranks);
    }

    #[test]
    fn any_bytes_are_read(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        steps in prop::collection::vec(step(), 1..20),
    ) {
        let value = [&EMPTY[..HEADER], &bytes].concat();
        let registers = SketchRegisters::of(&value).expect("a sketch");
        let mut sketch = Sketch::copy(&value);
        for (register, rank) in steps {
            let read = registers.rank(register);
            if let Ok(is_raised) = sketch.raise(register, rank, 3000) {
                prop_assert!(!is_raised || read.is_ok_and(|before| before < rank));
            }
        }
        let is_damaged = registers.estimate().is_err();
        prop_assert_eq!(registers.merge_into(&mut vec![0; REGISTERS]).is_err(), is_damaged);
        prop_assert_eq!(sketch.make_dense().is_err(), is_damaged);
    }
}

#[test]
fn other_strings_are_no_sketches() {
    let dense = [&b"HYLL\0"[..], &[0; 11 + dense::LEN]].concat();
    assert!(SketchRegisters::of(&dense).is_some());
    for value in [
        &b""[..],
        b"HYLL\x01\0\0\0\0\0\0\0\0\0\0",
        b"HYLM\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff",
        b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\0\x7f\xff",
        &dense[1..],
        &dense[..dense.len() - 1],
        &[&dense[..], b"\0"].concat(),
    ] {
        assert!(SketchRegisters::of(value).is_none());
    }
}

#[test]
fn the_number_of_elements_is_kept_until_it_is_out_of_date() {
    let mut value = EMPTY;
    assert_eq!(cached_cardinality(&value), None);
    value[CARDINALITY_AT..HEADER].copy_from_slice(&258u64.to_le_bytes());
    assert_eq!(cached_cardinality(&value), Some(258));
    let mut sketch = Sketch::copy(&value);
    sketch.make_dense().expect("a sound sketch");
    assert_eq!(cached_cardinality(sketch.as_bytes()), Some(258));
    sketch.invalidate();
    assert_eq!(cached_cardinality(sketch.as_bytes()), None);
    assert_eq!(sketch.as_bytes()[CARDINALITY_AT..CARDINALITY_AT + 2], [2, 1]);
}
