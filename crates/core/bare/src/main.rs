#![no_std]
#![no_main]
//! A program that is `bursar-core` and nothing else: its own entry point, allocator and panic handler, linked
//! without a start file and without any library. It links only if the core needs neither std nor an operating
//! system; and it takes one deposit through the whole commit protocol, so that nothing is left out as unused.
//!
//! It ends with status 0 if the deposit was applied and its chain holds, and with 1 otherwise.

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bursar_core::commit::{Appended, Batch, Limits, Machine, Outcome, ProposeResult, Routes, Step, Submission, Ticket};
use bursar_core::{
    Amount, ChainCheck, Currencies, CustomerId, EventStatus, LedgerConfig, Policy, Record, Request, TransactionEntry,
    TransactionId,
};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

const HEAP_BYTES: usize = 1 << 20;

/// Hands out memory from front to back, and takes none back.
#[repr(align(64))]
struct Bump {
    heap: UnsafeCell<[u8; HEAP_BYTES]>,
    used: AtomicUsize,
}

// SAFETY: the heap's bytes are only reached through `alloc`, which gives each of them out once.
unsafe impl Sync for Bump {}

// SAFETY: a block lies within the heap, is aligned (the heap is, to 64 bytes, and larger alignments are refused),
// and overlaps no other, since `used` only grows.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let claim = |used: usize| {
            let start = used.next_multiple_of(layout.align());
            let end = start.checked_add(layout.size())?;
            (end <= HEAP_BYTES && layout.align() <= 64).then_some(end)
        };
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim) {
            Ok(used) => unsafe { self.heap.get().cast::<u8>().add(used.next_multiple_of(layout.align())) },
            Err(_) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: Bump = Bump { heap: UnsafeCell::new([0; HEAP_BYTES]), used: AtomicUsize::new(0) };

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(1)
}

/// One deposit, from the request to a chain that holds.
fn deposit() -> Option<()> {
    let config = LedgerConfig { ledger: [1; 16], policy: Policy::default(), currencies: Currencies::default() };
    let digest = config.digest();
    let mut machine = Machine::new(config.clone(), Routes::default(), Limits::default(), true, 0, 1);
    let mut batch = Batch::new(1);
    let customer = CustomerId::new(1);
    let request = Request::deposit(customer, TransactionId::new(1), Amount::from_steps(5));
    let mut queue = VecDeque::from([Submission::new(Ticket(1), request)]);
    machine.gather(1, &mut queue, &mut batch);
    let mut event = None;
    loop {
        match batch.step() {
            Step::Load => machine.loaded(&digest, &mut batch, [None]).ok()?,
            Step::Get => machine.found(&mut batch, &[TransactionEntry::default()]).ok()?,
            Step::AtOnce | Step::Settle | Step::Recall => return None,
            Step::AppendStarted => {
                let Record::Started(linked) = batch.started().first()? else { return None };
                event = Some(linked.clone());
                machine.started(&mut batch, &[Appended::Yes]).ok()?;
            }
            Step::Propose => machine.proposed(&mut batch, &[ProposeResult::Proposed]).ok()?,
            Step::AppendClosed => machine.closed(&mut batch, &[Appended::Yes]).ok()?,
            Step::Sync => batch.synced(),
            Step::Finish => break,
        }
    }
    let answers: Vec<_> = batch.take_answers();
    let Ok(Outcome::Applied(receipt)) = &answers.first()?.result else { return None };
    let mut check = ChainCheck::new(&digest, customer);
    check.follow(&config, None, &event?, &EventStatus::Done).ok()?;
    (check.head().link == receipt.hash).then_some(())
}

#[unsafe(no_mangle)]
extern "C" fn bare_main() -> ! {
    exit(if deposit().is_some() { 0 } else { 1 })
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod machine {
    //! What a kernel or a board would bring: where execution begins and ends, and the four functions over memory
    //! that compiled code may call anywhere.

    core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call bare_main", "ud2");

    pub(super) fn exit(status: i32) -> ! {
        // SAFETY: `exit` of Linux (60) does not return and touches no memory.
        unsafe { core::arch::asm!("syscall", in("rax") 60, in("rdi") status, options(noreturn, nostack)) }
    }

    // In assembly, since a loop in Rust would be compiled to a call of the very function it defines.
    core::arch::global_asm!(
        ".globl memcpy",
        "memcpy:",
        "mov rax, rdi",
        "mov rcx, rdx",
        "rep movsb",
        "ret",
        ".globl memmove",
        "memmove:",
        "mov rax, rdi",
        "mov rcx, rdx",
        "mov r8, rdi",
        "sub r8, rsi",
        "cmp r8, rdx",
        "jb 2f",
        "rep movsb",
        "ret",
        "2: lea rdi, [rdi + rdx - 1]",
        "lea rsi, [rsi + rdx - 1]",
        "std",
        "rep movsb",
        "cld",
        "ret",
        ".globl memset",
        "memset:",
        "mov r8, rdi",
        "mov eax, esi",
        "mov rcx, rdx",
        "rep stosb",
        "mov rax, r8",
        "ret",
        ".globl memcmp",
        ".globl bcmp",
        "memcmp:",
        "bcmp:",
        "xor ecx, ecx",
        "2: cmp rcx, rdx",
        "je 3f",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx r8d, byte ptr [rsi + rcx]",
        "inc rcx",
        "sub eax, r8d",
        "je 2b",
        "ret",
        "3: xor eax, eax",
        "ret",
    );
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod machine {
    /// On a board there is nowhere to go.
    pub(super) fn exit(_: i32) -> ! {
        loop {
            core::hint::spin_loop();
        }
    }
}

use machine::exit;
