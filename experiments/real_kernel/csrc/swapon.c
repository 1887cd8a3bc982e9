/* SPDX-License-Identifier: Apache-2.0
 *
 * swapon DEVICE PRIORITY DISCARD: busybox's swapon knows no priorities. PRIORITY -1: the kernel's default;
 * DISCARD 1: discard freed pages and at the start. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/swap.h>

int main(int count, char **arguments)
{
    if (count != 4)
        return 2;
    int priority = atoi(arguments[2]), flags = 0;
    if (priority >= 0)
        flags |= SWAP_FLAG_PREFER | (priority & SWAP_FLAG_PRIO_MASK);
    if (atoi(arguments[3]))
        flags |= SWAP_FLAG_DISCARD;
    if (!swapon(arguments[1], flags))
        return 0;
    perror(arguments[1]);
    return 1;
}
