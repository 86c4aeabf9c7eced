# switch_stack(save: *mut usize in RDI, load: usize in RSI): swaps what calls preserve, and the
# stack.
    .text
    .globl switch_stack
    .type switch_stack,@function
switch_stack:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $8, %rsp
    stmxcsr (%rsp)
    fnstcw 4(%rsp)
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    ldmxcsr (%rsp)
    fldcw 4(%rsp)
    addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

# Where a fresh stack begins: calls what is in R13 with R12.
    .globl thread_trampoline
    .type thread_trampoline,@function
thread_trampoline:
    xorl %ebp, %ebp                 # the end of the chain of frames
    movq %r12, %rdi
    call *%r13
    ud2
