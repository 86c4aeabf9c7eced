# The monitor: all code that ever runs at CPL 0.
#
# Hosts without hardware virtualization emulate each instruction here (about 1.1 us): so there are
# few, and no loop over memory. Once locked, CPL 3 cannot reach page tables, descriptor tables or
# this code; the only mappings that can still change are those of the stack window, always writable,
# never executable, and only of frames inside the frame zone.

    .section .note.Xen,"aR",@note
    .balign 4
    .long 4, 4, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long _start

    .section .note.vmm_lite,"aR",@note
    .balign 4
    .long 9, 12, 1
    .asciz "vmm-lite"
    .balign 4
    .long {INTERFACE_VERSION}, {MIN_FREE_KIB}, 0
    # Filled in by the image builder.
    .long 9, {OWN_CLOCK_SIZE}, {OWN_CLOCK_TYPE}
    .asciz "vmm-lite"
    .balign 4
    .long {OWN_CLOCK_UNKNOWN}
    .zero {OWN_CLOCK_SIZE} - 4

    .section monitor_text,"axR",@progbits
    .balign 4096
    .globl monitor_text_start
monitor_text_start:

# PVH entry: 32-bit protected mode, flat, no paging, EBX = hvm_start_info.
    .code32
    .globl _start
    .type _start,@function
_start:
    movl $boot_pml4, %eax
    movl %eax, %cr3
    # PAE, OSFXSR, OSXMMEXCPT, FSGSBASE, OSXSAVE
    movl $((1<<5)|(1<<9)|(1<<10)|(1<<16)|(1<<18)), %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx          # EFER: LME, NXE
    xorl %edx, %edx
    movl $((1<<8)|(1<<11)), %eax
    wrmsr
    movl $0x80010033, %eax          # PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    lgdt monitor_gdtr
    ljmp $0x10, $1f
    .code64
1:
    # XCR0: what the CPU has of x87, SSE, AVX and AVX-512, not AMX (large, needs permission).
    xorl %ecx, %ecx
    movl $0xd, %eax
    movl %ebx, %edi
    cpuid
    andl $0xe7, %eax
    xorl %edx, %edx
    xorl %ecx, %ecx
    xsetbv
    # TSS descriptor: a base that no relocation can spread over the three places.
    movl $monitor_tss, %eax
    movw %ax, monitor_gdt+0x42
    shrl $16, %eax
    movb %al, monitor_gdt+0x44
    movb %ah, monitor_gdt+0x47
    movl $0x40, %eax
    ltr %ax
    # The one gate that Rust at CPL 3 needs to ask for the rest.
    movl $monitor_call, %eax
    movw %ax, monitor_idt+0x30
    shrl $16, %eax
    movw %ax, monitor_idt+0x36
    lidt monitor_idtr
    movl $boot_stack_top, %esp
    pushq $0x2b
    pushq $(boot_stack_top - 8)
    pushq $0x3002                   # IOPL 3: see docs/control-page.md
    pushq $0x33
    pushq $kernel_main
    iretq

# int3 from CPL 3: EAX is the call's number. Clobbers only RAX, RCX, RDX, RSI, RDI, R8-R11.
monitor_call:
    cmpl $({CALL} | 1), %eax
    je monitor_map
    cmpl $({CALL} | 3), %eax
    je monitor_halt
    cmpl $({CALL} | 4), %eax
    je monitor_return
    cmpl $({CALL} | 2), %eax
    je monitor_unmap
    cmpl $({CALL} | 5), %eax
    je monitor_lock
    pushq $0
    pushq $3
    jmp monitor_fault

# Loads the tables that Rust built: RDI = CR3. Once.
monitor_lock:
    cmpl $0, monitor_locked
    jne monitor_refuse
    movl $1, monitor_locked
    movq %rdi, %cr3
    xorl %eax, %eax
    iretq

monitor_refuse:
    movl $-1, %eax
    iretq

# Maps the chunk of 4 pages at RDI (stack window) to the frames at RSI; tables come from the pool.
monitor_map:
    movq %rdi, %rax
    orq %rsi, %rax
    testl $0x3fff, %eax
    jnz monitor_refuse
    cmpq monitor_frames_low, %rsi
    jb monitor_refuse
    cmpq monitor_frames_high, %rsi
    jae monitor_refuse
    movq %rdi, %rax
    shrq $38, %rax                  # window: 256 GiB from 1 TiB
    cmpl $4, %eax
    jne monitor_refuse
    movq %rdi, %rcx                 # bits of an address in its slot; its lowest chunk is the guard
    shrq $33, %rcx
    movl $1, %eax
    # The shift takes its count modulo 64: the window's own bits add 128.
    shlq %cl, %rax
    decq %rax
    andq %rdi, %rax
    cmpq $0x4000, %rax
    jb monitor_refuse
    movq monitor_window_pdpt, %rdx
    movq %rdi, %rcx
    shrq $30, %rcx
    andl $0xff, %ecx
    leaq (%rdx,%rcx,8), %r8
    movq (%r8), %rdx
    testb $1, %dl
    jnz 2f
    movq monitor_pool_next, %rdx
    cmpq monitor_pool_end, %rdx
    jae monitor_refuse
    addq $4096, monitor_pool_next
    orq $0x27, %rdx
    movq %rdx, (%r8)
2:  andq $-4096, %rdx
    movq %rdi, %rcx
    shrq $21, %rcx
    andl $0x1ff, %ecx
    leaq (%rdx,%rcx,8), %r8
    movq (%r8), %rdx
    testb $1, %dl
    jnz 3f
    movq monitor_pool_next, %rdx
    cmpq monitor_pool_end, %rdx
    jae monitor_refuse
    addq $4096, monitor_pool_next
    orq $0x27, %rdx
    movq %rdx, (%r8)
3:  andq $-4096, %rdx
    shrq $12, %rdi
    andl $0x1ff, %edi
    movabsq $0x8000000000000027, %rax   # accessed: see paging.rs
    orq %rsi, %rax
    movq %rax, (%rdx,%rdi,8)
    addq $4096, %rax
    movq %rax, 8(%rdx,%rdi,8)
    addq $4096, %rax
    movq %rax, 16(%rdx,%rdi,8)
    addq $4096, %rax
    movq %rax, 24(%rdx,%rdi,8)
    xorl %eax, %eax
    iretq

# Unmaps the chunk at RDI; returns in RAX the entry it had (0: none).
monitor_unmap:
    movq %rdi, %rax
    shrq $38, %rax
    cmpl $4, %eax
    jne monitor_refuse
    testl $0x3fff, %edi
    jnz monitor_refuse
    xorl %eax, %eax
    movq monitor_window_pdpt, %rdx
    movq %rdi, %rcx
    shrq $30, %rcx
    andl $0xff, %ecx
    movq (%rdx,%rcx,8), %rdx
    testb $1, %dl
    jz 4f
    andq $-4096, %rdx
    movq %rdi, %rcx
    shrq $21, %rcx
    andl $0x1ff, %ecx
    movq (%rdx,%rcx,8), %rdx
    testb $1, %dl
    jz 4f
    andq $-4096, %rdx
    movq %rdi, %rcx
    shrq $12, %rcx
    andl $0x1ff, %ecx
    movq (%rdx,%rcx,8), %rax
    xorl %esi, %esi
    movq %rsi, (%rdx,%rcx,8)
    movq %rsi, 8(%rdx,%rcx,8)
    movq %rsi, 16(%rdx,%rcx,8)
    movq %rsi, 24(%rdx,%rcx,8)
    invlpg (%rdi)
    invlpg 0x1000(%rdi)
    invlpg 0x2000(%rdi)
    invlpg 0x3000(%rdi)
4:  iretq

# Halts until an interrupt (QEMU only: under vmm-lite the doorbell waits).
monitor_halt:
    sti
    hlt
    cli
    iretq

# Any interrupt: ends a halt. EOI is written at CPL 3 after the halt.
monitor_interrupt:
    iretq

# Faults. The record holds for CPL 3 all that the frame held; the frame then leads to the handler.
    .pushsection .rodata.monitor_gates,"aR"
    .balign 8
    .globl monitor_gates, monitor_gates_end
monitor_gates:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .quad 0x40 + \n, monitor_interrupt      # the APIC's timer, devices, spurious
    .endr
    .popsection
    .macro fault_stub vector, has_code
    .pushsection .rodata.monitor_gates,"aR"
    .quad \vector, monitor_fault_\vector
    .popsection
monitor_fault_\vector:
    .if \has_code == 0
    pushq $0
    .endif
    pushq $\vector
    jmp monitor_fault
    .endm
    fault_stub 0, 0
    fault_stub 1, 0
    fault_stub 4, 0
    fault_stub 5, 0
    fault_stub 6, 0
    fault_stub 7, 0
    fault_stub 8, 1
    fault_stub 10, 1
    fault_stub 11, 1
    fault_stub 12, 1
    fault_stub 13, 1
    fault_stub 14, 1
    fault_stub 16, 0
    fault_stub 17, 1
    fault_stub 19, 0
    fault_stub 21, 1
    .pushsection .rodata.monitor_gates
monitor_gates_end:
    .popsection

monitor_fault:
    # A fault of the monitor itself, or one while another is being handled, ends the VM.
    cmpl $0x33, 24(%rsp)
    jne monitor_die
    cmpl $0, fault_record
    jne monitor_die
    movl $1, fault_record
    movq %rax, fault_record+8
    popq fault_record+16            # vector
    popq fault_record+24            # error code
    movq %cr2, %rax
    movq %rax, fault_record+32
    movq (%rsp), %rax
    movq %rax, fault_record+40      # RIP
    movq 16(%rsp), %rax
    movq %rax, fault_record+48      # RFLAGS
    movq 24(%rsp), %rax
    movq %rax, fault_record+56      # RSP
    movq $fault_entry, (%rsp)
    movq $0x3002, 16(%rsp)
    movq $fault_stack_top, 24(%rsp)
    iretq

# Back to where a fault came from, all registers but those of the frame being in place already.
monitor_return:
    movq fault_record+40, %rax
    movq %rax, (%rsp)
    movq fault_record+48, %rax
    andl $0x8cd5, %eax              # never IF, NT, VM
    orl $0x3002, %eax
    movq %rax, 16(%rsp)
    movq fault_record+56, %rax
    movq %rax, 24(%rsp)
    movq fault_record+8, %rax
    movl $0, fault_record
    iretq

monitor_die:
    lidt monitor_no_idt
    ud2

    .balign 4096
    .globl monitor_text_end
monitor_text_end:

    .section monitor_data,"awR",@progbits
    .balign 4096
    .globl monitor_data_start
monitor_data_start:
    .globl monitor_gdt
# Selectors as Linux has them: 0x10 kernel, 0x33 user code, 0x2b user data.
monitor_gdt:
    .quad 0, 0
    .quad 0x00af9b000000ffff        # 0x10 64-bit code, CPL 0
    .quad 0x00cf93000000ffff        # 0x18 data, CPL 0
    .quad 0x00cffb000000ffff        # 0x20 32-bit code, CPL 3
    .quad 0x00cff3000000ffff        # 0x28 data, CPL 3
    .quad 0x00affb000000ffff        # 0x30 64-bit code, CPL 3
    .quad 0
    .quad 0x0000890000000000 | (monitor_tss_end - monitor_tss - 1), 0   # 0x40 TSS
monitor_gdt_end:
monitor_gdtr:
    .word monitor_gdt_end - monitor_gdt - 1
    .quad monitor_gdt
monitor_idtr:
    .word 256*16-1
    .quad monitor_idt
monitor_no_idt:
    .word 0
    .quad 0
    .balign 16
    .globl monitor_idt
monitor_idt:
    .skip 3*16
    .quad 0x0000ee0000100000, 0     # 3: open to CPL 3
    .skip 252*16
    .balign 16
monitor_tss:
    .long 0
    .quad monitor_stack_top
    .fill 92-4, 1, 0
    .word 104 - 0, 104              # T bit, offset of the permission map
    .equ map_at, 104
    .fill 0x70/8, 1, 0xff
    .byte 0xff ^ (3<<(0x70%8))      # CMOS clock
    .fill 0xe9/8 - 0x70/8 - 1, 1, 0xff
    .byte 0xff ^ (1<<(0xe9%8))
    .fill 0xf4/8 - 0xe9/8 - 1, 1, 0xff
    .byte 0xff ^ (1<<(0xf4%8))
    .fill 0x2f8/8 - 0xf4/8 - 1, 1, 0xff
    .byte 0                         # COM2
    .fill 0x3f8/8 - 0x2f8/8 - 1, 1, 0xff
    .byte 0                         # COM1
    .fill {DOORBELL}/8 - 0x3f8/8 - 1, 1, 0xff
    .byte 0xff ^ (0xf << ({DOORBELL}%8))
    .byte 0xff
monitor_tss_end:
    .balign 8
    .globl monitor_locked, monitor_frames_low, monitor_frames_high, monitor_window_pdpt
    .globl monitor_pool_next, monitor_pool_end
monitor_locked: .long 0, 0
monitor_frames_low: .quad 0
monitor_frames_high: .quad 0
monitor_window_pdpt: .quad 0
monitor_pool_next: .quad 0
monitor_pool_end: .quad 0
    .balign 16
    .fill 512, 1, 0
monitor_stack_top:
    .balign 4096
# The first tables: the first GiB as it is, until Rust has built better ones.
boot_pml4:
    .quad boot_pdpt + 0x27
    .fill 511, 8, 0
boot_pdpt:
    .quad boot_pd + 0x27
    .fill 511, 8, 0
boot_pd:
    .set at, 0
    .rept 512
    .quad at + 0xa7
    .set at, at + 0x200000
    .endr
    .globl monitor_data_end
monitor_data_end:
    .section .bss.boot_stack,"awR",@nobits
    .balign 16
    .globl boot_stack_bottom
boot_stack_bottom:
    .skip 65536
boot_stack_top:
    .skip 16384
    .globl fault_stack_top
fault_stack_top:
    .balign 64
    .globl fault_record
fault_record:
    .skip 64
    .text
