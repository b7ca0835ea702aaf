//! The first megabytes of a process' memory: taken one after the other from large pages, and given back when it ends.
//!
//! A patch is a process of two to six milliseconds. With the C library's allocator a fifth of redis' was 600 page faults (1.4
//! µs each in a virtual machine; a large page takes 90 for 512 of them) and the keeping of lists of what is free: 5.6 ms
//! of processor time, 4.7 with this (benches/README.md). A full link soon has more than fits, and gets the
//! C library's as before.

#![expect(
    unsafe_code,
    reason = "an allocator hands out memory; no library's starts with large pages at this cost"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// A large page of x86-64.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Address space; large pages that nothing is taken from are no memory. A patch of redis takes 7 MB, one of Lua 1.3.
const ARENA_BYTES: usize = 8 << 20;

/// Memory that is taken from its start on. What was taken last can grow, shrink and be given back; what was taken before stays
/// until the process ends. It is closed until [`Arena::open`], and without large pages it stays so.
#[derive(Debug)]
pub struct Arena {
    /// Of [`ARENA_BYTES`], or null.
    start: AtomicPtr<u8>,
    /// How much of it is taken; all, as long as there is none.
    taken: AtomicUsize,
}

impl Default for Arena {
    fn default() -> Arena {
        Arena::closed()
    }
}

impl Arena {
    /// One that has no memory yet: everything comes from the C library.
    pub const fn closed() -> Arena {
        Arena { start: AtomicPtr::new(ptr::null_mut()), taken: AtomicUsize::new(ARENA_BYTES) }
    }

    /// Gets the memory. Only the first call does something.
    pub fn open(&self) {
        if !self.start.load(Ordering::Relaxed).is_null() {
            return;
        }
        let (protection, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice is nobody's memory.
        let mapped =
            unsafe { mmap_anonymous(ptr::null_mut(), ARENA_BYTES + LARGE_PAGE_BYTES, protection, flags) };
        let Ok(mapped) = mapped.map(|mapped| mapped.cast::<u8>()) else { return };
        let start = mapped.wrapping_add(mapped.align_offset(LARGE_PAGE_BYTES));
        // SAFETY: the range is part of the mapping, whose start was moved by less than a large page; the advice changes no byte.
        let _ = unsafe { madvise(start.cast(), ARENA_BYTES, Advice::LinuxHugepage) };
        if self.start.compare_exchange(ptr::null_mut(), start, Ordering::Release, Ordering::Relaxed).is_ok() {
            self.taken.store(0, Ordering::Release);
        }
    }

    /// Takes a block; `None` if there is no room for it.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let mut taken = self.taken.load(Ordering::Acquire);
        loop {
            // The start is aligned to a large page. Nothing is aligned to more.
            let at = taken.checked_next_multiple_of(layout.align())?;
            let end = at.checked_add(layout.size()).filter(|&end| end <= ARENA_BYTES)?;
            if layout.align() > LARGE_PAGE_BYTES {
                return None;
            }
            match self.taken.compare_exchange_weak(taken, end, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(self.start.load(Ordering::Relaxed).wrapping_add(at)),
                Err(now) => taken = now,
            }
        }
    }

    /// Where a block begins in the arena; `None` if it is the C library's.
    fn offset_of(&self, block: *mut u8) -> Option<usize> {
        let start = self.start.load(Ordering::Relaxed);
        let offset = block.addr().wrapping_sub(start.addr());
        (!start.is_null() && offset < ARENA_BYTES).then_some(offset)
    }

    /// Makes a block end elsewhere; `false` if another one was taken behind it, or the arena ends before.
    fn resize(&self, offset: usize, old: usize, new: usize) -> bool {
        let Some(end) = offset.checked_add(new).filter(|&end| end <= ARENA_BYTES) else { return false };
        self.taken.compare_exchange(offset + old, end, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: `take` gives each byte to one block, by one atomic step; it is another's only after `resize` has moved the
// end back, which succeeds only if the block is the last, and which its owner alone asks for. Blocks outside are `System`'s,
// and go back to it. `arena::tests` has blocks of four threads that come, grow and go.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about the layout are those that `System` asks for.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(block) => {
                // SAFETY: the block has this size and belongs to nobody else. Another one may have been here before.
                unsafe { block.write_bytes(0, layout.size()) };
                block
            }
            // SAFETY: as in `alloc`.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset_of(block) {
            Some(offset) => _ = self.resize(offset, layout.size(), 0),
            // SAFETY: what is not in the arena came from `System`, with this layout.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset_of(block) else {
            // SAFETY: as in `dealloc`.
            return unsafe { System.realloc(block, layout, size) };
        };
        if self.resize(offset, layout.size(), size) || size <= layout.size() {
            return block;
        }
        // SAFETY: the caller promises that the new size makes a layout; the old block stays its own, is no part of
        // the new one, and is shorter.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size());
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    fn open() -> Arena {
        let arena = Arena::closed();
        arena.open();
        assert!(!arena.start.load(Ordering::Relaxed).is_null(), "memory for the arena");
        arena
    }

    #[test]
    fn last_block_grows_in_place_and_goes_and_others_move() {
        let arena = open();
        // SAFETY: each block is used within its size, and no more after it was given back.
        unsafe {
            let first = arena.alloc(layout(10, 1));
            let second = arena.alloc(layout(24, 8));
            assert_eq!(second.addr() - first.addr(), 16);
            assert_eq!(arena.realloc(second, layout(24, 8), 4000), second);
            first.write_bytes(7, 10);
            let moved = arena.realloc(first, layout(10, 1), 20);
            assert_eq!(moved.addr(), second.addr() + 4000);
            assert_eq!(std::slice::from_raw_parts(moved, 10), [7; 10]);
            arena.dealloc(moved, layout(20, 1));
            let zeroed = arena.alloc_zeroed(layout(20, 1));
            assert_eq!(zeroed, moved, "it was given back");
            assert_eq!(std::slice::from_raw_parts(zeroed, 20), [0; 20]);
            let aligned = arena.alloc(layout(1, 1 << 16));
            assert!(aligned.addr().is_multiple_of(1 << 16));
        }
    }

    #[test]
    fn what_does_not_fit_comes_from_the_system_and_goes_back_to_it() {
        let (closed, arena) = (Arena::closed(), open());
        for (arena, size) in [(&closed, 100), (&arena, ARENA_BYTES + 1), (&arena, ARENA_BYTES)] {
            // SAFETY: as above.
            unsafe {
                let block = arena.alloc(layout(size, 16));
                assert_eq!(arena.offset_of(block).is_some(), size == ARENA_BYTES);
                block.add(size - 1).write(1);
                let block = arena.realloc(block, layout(size, 16), size + 100);
                assert_eq!((arena.offset_of(block), block.add(size - 1).read()), (None, 1));
                arena.dealloc(block, layout(size + 100, 16));
            }
        }
        assert_eq!(arena.take(layout(1, 1)), None, "what moved away stays taken");
    }

    #[test]
    fn blocks_of_threads_do_not_overlap() {
        let arena = open();
        std::thread::scope(|scope| {
            for thread in 1..=4_u8 {
                let arena = &arena;
                scope.spawn(move || {
                    let mut blocks: Vec<(*mut u8, usize)> = Vec::new();
                    for step in 0..3000_usize {
                        let size = 1 + step * 37 % 500;
                        // SAFETY: as above.
                        unsafe {
                            match blocks.last().copied().filter(|_| step % 3 == 1) {
                                Some((block, old)) => {
                                    let new = arena.realloc(block, layout(old, 8), old + size);
                                    new.add(old).write_bytes(thread, size);
                                    *blocks.last_mut().unwrap() = (new, old + size);
                                }
                                None => {
                                    let block = arena.alloc(layout(size, 8));
                                    block.write_bytes(thread, size);
                                    blocks.push((block, size));
                                }
                            }
                            if step % 7 == 6 {
                                let (block, size) = blocks.pop().unwrap();
                                arena.dealloc(block, layout(size, 8));
                            }
                        }
                    }
                    for (block, size) in blocks {
                        // SAFETY: as above.
                        let bytes = unsafe { std::slice::from_raw_parts(block, size) };
                        assert!(bytes.iter().all(|&byte| byte == thread));
                        // SAFETY: as above.
                        unsafe { arena.dealloc(block, layout(size, 8)) };
                    }
                });
            }
        });
    }
}
