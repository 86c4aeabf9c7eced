//! What hermit-abi declares and this kernel does not have. A program that calls one of these does
//! not link, and the linker's error names the function.

/// Each function with the reason.
pub const UNSUPPORTED: [(&str, &str); 16] = [
    ("sys_mmap", FIXED),
    ("sys_munmap", FIXED),
    ("sys_mprotect", FIXED),
    ("sys_sem_init", FUTEX),
    ("sys_sem_destroy", FUTEX),
    ("sys_sem_post", FUTEX),
    ("sys_sem_trywait", FUTEX),
    ("sys_sem_timedwait", FUTEX),
    ("sys_notify", FUTEX),
    ("sys_add_queue", FUTEX),
    ("sys_wait", FUTEX),
    ("sys_init_queue", FUTEX),
    ("sys_destroy_queue", FUTEX),
    ("sys_block_current_task", FUTEX),
    ("sys_block_current_task_with_timeout", FUTEX),
    ("sys_wakeup_taskt", FUTEX),
];

/// Rights of pages are set at boot, and no code outside of the monitor can change them.
const FIXED: &str = "the page tables are fixed at boot; memory comes from malloc";
/// Older ways to wait.
const FUTEX: &str = "replaced by futexes, which std's synchronization uses";
