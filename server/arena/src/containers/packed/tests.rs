//! Runs against a plain vector, and against bytes that are none.

use proptest::prelude::*;

use super::*;

fn pack(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut run = Vec::new();
    for element in elements {
        Encoded::of(element).push_to(&mut run);
    }
    run
}

fn text(element: Element<'_>) -> Vec<u8> {
    element.bytes(&mut itoa::Buffer::new()).to_vec()
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        2 => (-300i64..300).prop_map(|n| n.to_string().into_bytes()),
        1 => (0u32..64, any::<bool>(), -2i64..2).prop_map(|(bits, negative, off)| {
            let power = (1i64 << bits.min(62)) + off;
            (if negative { -power } else { power }).to_string().into_bytes()
        }),
        4 => prop::collection::vec(any::<u8>(), 0..80),
        1 => (any::<u8>(), 180usize..300).prop_map(|(b, n)| vec![b; n]),
        1 => (any::<u8>(), 65_500usize..66_000).prop_map(|(b, n)| vec![b; n]),
        1 => "[-+]?0?[0-9]{0,20}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn agrees_with_a_vector(elements in prop::collection::vec(element(), 0..30)) {
        let run = pack(&elements);
        prop_assert_eq!(check(&run), Some(elements.len()));
        prop_assert_eq!(&iter(&run).map(text).collect::<Vec<_>>(), &elements);
        let backwards: Vec<_> = iter(&run).rev().map(text).collect();
        prop_assert_eq!(backwards, elements.iter().rev().cloned().collect::<Vec<_>>());
        for (i, element) in elements.iter().enumerate() {
            let at = nth(&run, i).unwrap();
            prop_assert_eq!(Some(at), nth_back(&run, elements.len() - 1 - i));
            prop_assert_eq!(&text(get(&run, at).0), element);
            prop_assert_eq!(get(&run, at).0.size(), element.len());
            let first = elements.iter().position(|other| other == element).unwrap();
            let found = find(&run, &Encoded::of(element), 0, 1);
            prop_assert_eq!(found, nth(&run, first));
            let even = elements.iter().step_by(2).position(|other| other == element);
            if elements.len().is_multiple_of(2) {
                let found = find(&run, &Encoded::of(element), 0, 2);
                prop_assert_eq!(found, even.and_then(|i| nth(&run, 2 * i)));
            }
            let mut place = vec![0; Encoded::of(element).len()];
            Encoded::of(element).write_to(&mut place);
            prop_assert_eq!(&place[..], &run[at..next(&run, at)]);
        }
        prop_assert_eq!(nth(&run, elements.len()), None);
        prop_assert_eq!(nth_back(&run, elements.len()), None);
    }

    #[test]
    fn bytes_that_are_no_run_are_told(
        elements in prop::collection::vec(element(), 1..8),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let run = pack(&elements);
        let mut changed = run.clone();
        changed[at.index(run.len())] = byte;
        if let Some(count) = check(&changed) {
            // Another run, then: what it says is what it would be packed into.
            let again: Vec<_> = iter(&changed).map(text).collect();
            prop_assert_eq!(again.len(), count);
            prop_assert_eq!(pack(&again), changed);
        }
        let cut = &run[..cut.index(run.len())];
        if let Some(count) = check(cut) {
            prop_assert_eq!(nth(&run, count), Some(cut.len()));
        }
    }

    #[test]
    fn any_bytes_can_be_checked(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if check(&bytes).is_some() {
            prop_assert_eq!(pack(&iter(&bytes).map(text).collect::<Vec<_>>()), bytes);
        }
    }

    #[test]
    fn numbers_are_those_that_are_written_so(text in "[-+]?[0-9]{0,21}|[0-9a]{0,3}") {
        let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
        prop_assert_eq!(as_number(text.as_bytes()), number);
    }
}

#[test]
fn elements_are_short() {
    let len = |text: &str| Encoded::of(text.as_bytes()).len();
    assert_eq!([len("0"), len("47"), len("48"), len("-1"), len("-129")], [2, 2, 3, 3, 4]);
    assert_eq!([len(""), len("abc"), len("9223372036854775807")], [2, 5, 10]);
    assert_eq!([len("-9223372036854775808"), len("9223372036854775808")], [10, 21]);
    assert_eq!(len(&"a".repeat(191)), 193);
    assert_eq!(len(&"a".repeat(192)), 192 + 3 + 1);
    assert_eq!(len(&"a".repeat(252)), 252 + 3 + 5);
    assert_eq!(iter(&[]).next(), None);
    assert_eq!(previous(&[], 0), None);
}
