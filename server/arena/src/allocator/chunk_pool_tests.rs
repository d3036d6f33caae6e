//! The chunk pool with a stock, against a plain model.

use proptest::prelude::*;

use super::*;

fn first(taken: Result<TakenMemory, OutOfMemory>) -> Result<ChunkIndex, OutOfMemory> {
    taken.map(|taken| taken.chunk)
}
use crate::memory::pages::PageKind;

const CHUNKS: u32 = 150;
const MARK: u32 = 6;

fn pool() -> (BackingStore, ChunkPool) {
    let capacity = u64::from(CHUNKS) * CHUNK_SIZE;
    let store = BackingStore::reserve(PageKind::Small.into(), capacity).unwrap().unwrap();
    let mut pool = ChunkPool::new(CHUNKS).unwrap();
    pool.adopt(ChunkIndex(0));
    pool.set_stock_mark(MARK);
    (store, pool)
}

#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct ModelChunk {
    used: bool,
    dirty: bool,
    busy: bool,
    huge: bool,
}

impl ModelChunk {
    const fn is_idle(self) -> bool {
        !self.used && !self.busy
    }

    const fn is_stocked(self) -> bool {
        self.is_idle() && self.huge
    }
}

/// What the pool is to do, in the simplest words.
struct Model {
    chunks: Vec<ModelChunk>,
    runs: Vec<(u32, u32)>,
    preparing: std::ops::Range<u32>,
    releasing: Option<u32>,
    taken: u64,
    taken_small: u64,
}

impl Model {
    fn new() -> Self {
        let mut chunks = vec![ModelChunk::default(); CHUNKS as usize];
        chunks[0].used = true;
        Self { chunks, runs: vec![], preparing: 0..0, releasing: None, taken: 0, taken_small: 0 }
    }

    fn lowest_run(&self, count: u32, wanted: impl Fn(u32, ModelChunk) -> bool) -> Option<u32> {
        let fits = |first: &u32| {
            (*first..first + count).all(|chunk| wanted(chunk, self.chunks[chunk as usize]))
        };
        (0..=CHUNKS - count).find(fits)
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        let spared = self.preparing.clone();
        let stocked = self.lowest_run(count, |_, chunk| chunk.is_stocked() && count == 1);
        let first = stocked
            .or_else(|| self.lowest_run(count, |at, c| c.is_idle() && !spared.contains(&at)))
            .or_else(|| self.lowest_run(count, |_, c| c.is_idle()))?;
        for chunk in &mut self.chunks[first as usize..(first + count) as usize] {
            (chunk.used, chunk.dirty) = (true, false);
            self.taken += 1;
            self.taken_small += u64::from(!chunk.huge);
        }
        self.runs.push((first, count));
        Some(first)
    }

    fn put_back(&mut self, (first, count): (u32, u32)) {
        for chunk in &mut self.chunks[first as usize..(first + count) as usize] {
            (chunk.used, chunk.dirty) = (false, true);
        }
    }

    fn count(&self, wanted: impl Fn(ModelChunk) -> bool) -> u64 {
        self.chunks.iter().filter(|chunk| wanted(**chunk)).count() as u64
    }

    /// The chunk whose memory goes next: the highest on small pages, else the highest.
    fn next_release(&self) -> Option<u32> {
        if self.count(|c| c.is_idle() && c.dirty) <= KEEP_DIRTY.max(u64::from(MARK)) {
            return None;
        }
        let highest = |small: bool| {
            self.chunks.iter().rposition(|c| c.is_idle() && c.dirty && !(small && c.huge))
        };
        highest(true).or_else(|| highest(false)).map(|chunk| u32::try_from(chunk).unwrap())
    }

    /// The lowest chunks that can join the stock; a batch stays within 64 chunks.
    fn next_prepare(&self, most: u32) -> Option<std::ops::Range<u32>> {
        let missing = u64::from(MARK).saturating_sub(self.count(ModelChunk::is_stocked));
        let can_join = |_, chunk: ModelChunk| chunk.is_idle() && !chunk.huge;
        let first = self.lowest_run(1, can_join).filter(|_| missing > 0)?;
        let most = most.min(u32::try_from(missing).unwrap()).min(64 - first % 64);
        let joins = |chunk: &u32| *chunk < CHUNKS && can_join(*chunk, self.chunks[*chunk as usize]);
        let count = (first..first + most).take_while(joins).count();
        Some(first..first + u32::try_from(count).unwrap())
    }
}

fn check(pool: &ChunkPool, model: &Model) {
    for (at, chunk) in model.chunks.iter().enumerate() {
        let at = u32::try_from(at).unwrap();
        let found = ModelChunk {
            used: !bit(&pool.free, at),
            dirty: bit(&pool.dirty, at),
            busy: bit(&pool.busy, at),
            huge: bit(&pool.huge, at),
        };
        assert_eq!(found, *chunk, "chunk {at}");
        assert!(!chunk.huge || chunk.used || chunk.dirty, "chunk {at} has no memory to be huge");
    }
    let stock = StockStats {
        chunks: model.count(ModelChunk::is_stocked),
        huge_in_use: model.count(|chunk| chunk.used && chunk.huge),
        mark: MARK,
        taken: model.taken,
        taken_small: model.taken_small,
    };
    assert_eq!(pool.stock(), stock);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take(u32),
    PutBack(usize),
    BeginPrepare(u32),
    EndPrepare(u32),
    BeginRelease,
    EndRelease(bool),
    NotePages(u32, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Take(1)),
        2 => (2u32..40).prop_map(Step::Take),
        6 => any::<usize>().prop_map(Step::PutBack),
        5 => (1u32..5).prop_map(Step::BeginPrepare),
        5 => (0u32..5).prop_map(Step::EndPrepare),
        3 => Just(Step::BeginRelease),
        3 => prop::bool::weighted(0.8).prop_map(Step::EndRelease),
        2 => (1..CHUNKS, any::<bool>()).prop_map(|(chunk, huge)| Step::NotePages(chunk, huge)),
    ]
}

fn apply(store: &BackingStore, pool: &mut ChunkPool, model: &mut Model, step: Step) {
    match step {
        Step::Take(count) => {
            let taken = pool.take_run(store, count).ok().map(|taken| taken.chunk.0);
            assert_eq!(taken, model.take(count), "{count} chunks");
        }
        Step::PutBack(which) if !model.runs.is_empty() => {
            let run = model.runs.swap_remove(which % model.runs.len());
            pool.put_run(store, ChunkIndex(run.0), run.1);
            model.put_back(run);
        }
        // `Arena::trimming` excludes preparing and releasing from each other.
        Step::BeginPrepare(most) if model.preparing.is_empty() && model.releasing.is_none() => {
            let expected = model.next_prepare(most);
            assert_eq!(pool.begin_prepare(most), expected);
            model.preparing = expected.unwrap_or(0..0);
        }
        Step::EndPrepare(huge) if !model.preparing.is_empty() => {
            let chunks = std::mem::replace(&mut model.preparing, 0..0);
            let huge = huge.min(chunks.end - chunks.start);
            pool.end_prepare(huge);
            for chunk in chunks.start..chunks.start + huge {
                let chunk = &mut model.chunks[chunk as usize];
                chunk.huge = true;
                chunk.dirty |= !chunk.used;
            }
        }
        Step::BeginRelease if model.preparing.is_empty() && model.releasing.is_none() => {
            model.releasing = model.next_release();
            let chunk = pool.begin_release(&store.barrier, KEEP_DIRTY).map(|chunk| chunk.0);
            assert_eq!(chunk, model.releasing);
            if let Some(chunk) = chunk {
                model.chunks[chunk as usize].busy = true;
            }
        }
        Step::EndRelease(released) => {
            let Some(chunk) = model.releasing.take() else { return };
            pool.end_release(ChunkIndex(chunk), released);
            let chunk = &mut model.chunks[chunk as usize];
            chunk.busy = false;
            chunk.dirty &= !released;
            chunk.huge &= !released;
        }
        Step::NotePages(chunk, huge) => {
            pool.note_pages(ChunkIndex(chunk), huge);
            let chunk = &mut model.chunks[chunk as usize];
            if (chunk.used || chunk.dirty) && !chunk.busy {
                chunk.huge = huge;
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_pool_does_as_the_model(steps in prop::collection::vec(step(), 1..400)) {
        let (store, mut pool) = pool();
        let mut model = Model::new();
        for step in steps {
            apply(&store, &mut pool, &mut model, step);
            check(&pool, &model);
        }
    }
}

#[test]
fn a_low_stock_asks_for_chunks_until_preparing_fails() {
    let (store, mut pool) = pool();
    let prepare = |pool: &mut ChunkPool, huge| {
        pool.begin_prepare(1).unwrap();
        pool.end_prepare(u32::from(huge));
    };
    assert!(pool.stock_is_low());
    (0..MARK).for_each(|_| prepare(&mut pool, true));
    assert!(!pool.stock_is_low() && pool.begin_prepare(1).is_none());
    (0..MARK / 2).for_each(|_| assert!(pool.take_run(&store, 1).is_ok()));
    assert!(pool.stock_is_low());
    prepare(&mut pool, false);
    assert!(!pool.stock_is_low(), "no thread waits for what the kernel refuses");
    prepare(&mut pool, true);
    (0..MARK / 2).for_each(|_| assert!(pool.take_run(&store, 1).is_ok()));
    assert!(pool.stock_is_low(), "it works again");
    assert_eq!(pool.stock().taken_small, 0);
}

#[test]
fn a_chunk_that_is_being_prepared_is_taken_last() {
    let (store, mut pool) = pool();
    assert_eq!(pool.begin_prepare(1), Some(1..2));
    assert_eq!(first(pool.take_run(&store, 1)), Ok(ChunkIndex(2)));
    assert_eq!(first(pool.take_run(&store, CHUNKS - 3)), Ok(ChunkIndex(3)));
    assert_eq!(first(pool.take_run(&store, 1)), Ok(ChunkIndex(1)), "there is no other");
    assert_eq!(pool.take_run(&store, 1), Err(OutOfMemory));
    pool.end_prepare(1);
    assert_eq!((pool.stock().chunks, pool.stock().huge_in_use), (0, 1));
}
