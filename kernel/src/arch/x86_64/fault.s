# Where the monitor leads a fault, at CPL 3: saves what a Rust handler may change, calls it, and
# goes back.
    .text
    .globl fault_entry
    .type fault_entry,@function
fault_entry:
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %rbx
    movq %rsp, %rbx
    subq $4096, %rsp
    andq $-64, %rsp
    movl $-1, %eax
    movl $-1, %edx
    fxsave64 (%rsp)
    movq $fault_record, %rdi
    movq %rbp, %rsi
    call handle_fault
    fxrstor64 (%rsp)
    movq %rbx, %rsp
    popq %rbx
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    movl $({CALL} | 4), %eax
    int3
