# Values that the kernel takes from the CPU: readings of the time stamp counter, random words. See
# the interface's `samples` for the ring that they go through.
#
# u64 take_tsc(void), u64 take_random(void). Clobber RAX, RCX, RDX and flags; the last three are left
# the same whichever way was taken, as even dead registers reach memory when a fault pushes them.
# From the routine's beginning to the instruction that counts the sample nothing changes but these
# registers and what can be done again: the VMM may continue a guest that is stopped there at the
# beginning.

    .macro take name, counted
    .globl \name
    .globl \counted
\name:
    movq {POSITION}, %rcx
    cmpq {LIMIT}, %rcx
    jb 3f
    cmpl ${OFF}, {MODE}
    jne 2f
    from_cpu_\name
    jmp 6f
2:  movl ${DOORBELL}, %edx
    movl ${RUNG}, %eax
    outl %eax, %dx
    jmp \name
3:  cmpl ${REPLAY}, {MODE}
    je 4f
    from_cpu_\name
    jmp 5f
4:  movq {SLOTS}(,%rcx,8), %rax
# Stored when replaying too: for the dirty bits in the entries of the ring's pages.
5:  movq %rax, {SLOTS}(,%rcx,8)
\counted:
    incq {POSITION}
6:  xorl %ecx, %ecx
    xorl %edx, %edx
    ret
    .endm

    .macro from_cpu_take_tsc
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    .endm

# The highest bit is set, which tells a random word from a reading of the counter. After ten refusals
# the counter stands in: the generator can be exhausted. Keeps RCX.
    .macro from_cpu_take_random
    movl $10, %edx
8:  rdrandq %rax
    jc 7f
    decl %edx
    jnz 8b
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    jmp 9f
7:  btsq $63, %rax
9:
    .endm

    .section .text.samples,"ax",@progbits
    .globl samples_begin
    .globl samples_end
samples_begin:
    take take_tsc, take_tsc_counted
    take take_random, take_random_counted
samples_end:
    .text
