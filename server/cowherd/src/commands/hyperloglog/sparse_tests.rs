use super::*;

/// Opcodes written as PFDEBUG DECODE writes them.
fn opcodes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.split(' ') {
        let (kind, numbers) = word.split_once(':').unwrap();
        let numbers: Vec<usize> = numbers.split(',').map(|n| n.parse().unwrap()).collect();
        match (kind, &numbers[..]) {
            ("z", [len]) => bytes.push(u8::try_from(len - 1).unwrap()),
            ("Z", [len]) => {
                let [high, low] = u16::try_from(len - 1).unwrap().to_be_bytes();
                bytes.extend([XZERO | high, low]);
            }
            ("v", [rank, len]) => {
                bytes.push(VAL | u8::try_from(((rank - 1) << 2) | (len - 1)).unwrap());
            }
            _ => panic!("{word}"),
        }
    }
    bytes
}

fn text(opcodes: &[u8]) -> String {
    let words: Vec<String> = runs(opcodes)
        .map(|run| match run.unwrap() {
            RegisterRun { rank: 0, size: 1, len, .. } => format!("z:{len}"),
            RegisterRun { rank: 0, len, .. } => format!("Z:{len}"),
            RegisterRun { rank, len, .. } => format!("v:{rank},{len}"),
        })
        .collect();
    words.join(" ")
}

/// The opcodes after some registers are raised one by one.
fn raised(start: &str, raises: &[(usize, u8)]) -> String {
    let mut value = opcodes(start);
    for (register, rank) in raises {
        raise(&mut value, 0, *register, *rank, u64::MAX).unwrap();
    }
    text(&value)
}

#[test]
fn runs_of_zeros_are_split() {
    assert_eq!(raised("Z:16384", &[(0, 3)]), "v:3,1 Z:16383");
    assert_eq!(raised("Z:16384", &[(16383, 3)]), "Z:16383 v:3,1");
    assert_eq!(raised("Z:16384", &[(64, 3)]), "z:64 v:3,1 Z:16319");
    assert_eq!(raised("Z:16384", &[(65, 3)]), "Z:65 v:3,1 Z:16318");
    assert_eq!(raised("z:1 Z:16383", &[(0, 32)]), "v:32,1 Z:16383");
    // A long opcode for one register, which only clients write.
    assert_eq!(raised("Z:1 Z:16383", &[(0, 2)]), "v:2,1 Z:16383");
}

#[test]
fn runs_of_values_are_split_and_joined() {
    let start = "v:1,4 Z:16380";
    assert_eq!(raised(start, &[(0, 1)]), start);
    assert_eq!(raised(start, &[(1, 2)]), "v:1,1 v:2,1 v:1,2 Z:16380");
    assert_eq!(raised(start, &[(1, 2), (2, 2)]), "v:1,1 v:2,2 v:1,1 Z:16380");
    assert_eq!(raised(start, &[(1, 2), (2, 2), (0, 2), (3, 2)]), "v:2,4 Z:16380");
    assert_eq!(raised(start, &[(4, 1)]), "v:1,4 v:1,1 Z:16379");
    assert_eq!(raised("v:1,3 z:1 v:1,2 Z:16378", &[(3, 1)]), "v:1,4 v:1,2 Z:16378");
    assert_eq!(raised("v:1,1 z:1 v:1,2 Z:16380", &[(1, 1)]), "v:1,4 Z:16380");
}

#[test]
fn the_limit_holds_only_for_growth() {
    let mut value = opcodes("z:1 Z:16383");
    assert_eq!(raise(&mut value, 0, 0, 33, 99), Ok(Raised::NoRoom));
    assert_eq!(raise(&mut value, 0, 0, 5, 0), Ok(Raised::Yes));
    assert_eq!(raise(&mut value, 0, 0, 5, 0), Ok(Raised::No));
    assert_eq!(raise(&mut value, 0, 9, 5, 4), Ok(Raised::NoRoom));
    assert_eq!(text(&value), "v:5,1 Z:16383");
    assert_eq!(raise(&mut value, 0, 9, 5, 5), Ok(Raised::Yes));
    assert_eq!(text(&value), "v:5,1 z:8 v:5,1 Z:16374");
}

#[test]
fn damage_is_found() {
    let complete = |text: &str| each_run(&opcodes(text), |_| {});
    assert_eq!(complete("Z:16384"), Ok(()));
    for damaged in ["Z:16383", "Z:16384 z:1", "Z:16383 v:1,2", "Z:16383 Z:16384"] {
        assert_eq!(complete(damaged), Err(DamagedSketch), "{damaged}");
    }
    let cut = [opcodes("Z:16128"), vec![XZERO]].concat();
    assert_eq!(each_run(&cut, |_| {}), Err(DamagedSketch));
    assert_eq!(rank(&cut, 16127), Ok(0));
    assert_eq!(rank(&cut, 16128), Err(DamagedSketch));
    assert_eq!(rank(&[], 0), Err(DamagedSketch));
    // A register before the damage can be raised, as in Redis.
    let mut value = opcodes("Z:9999 Z:9999");
    assert_eq!(raise(&mut value, 0, 16000, 5, 99), Ok(Raised::Yes));
    assert_eq!(text(&value), "Z:9999 Z:6001 v:5,1 Z:3997");
    // The walk ends behind the last register, however long the value is.
    let mut visited = 0;
    assert_eq!(each_run(&vec![VAL; 1 << 20], |_| visited += 1), Err(DamagedSketch));
    assert_eq!(visited, REGISTERS);
}
