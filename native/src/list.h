/* An intrusive doubly linked list: a member of an item links it, so nothing is allocated. */
#ifndef LIST_H
#define LIST_H

#include "core.h"

/* Unlinked when next is NULL. A list's head is a link of its own. */
typedef struct cl_link {
    struct cl_link *next;
    struct cl_link *previous;
} cl_link;

static inline void cl_list_init(cl_link *head)
{
    head->next = head;
    head->previous = head;
}

static inline bool cl_list_empty(const cl_link *head)
{
    return head->next == head;
}

static inline bool cl_linked(const cl_link *link)
{
    return link->next != NULL;
}

static inline void cl_list_push(cl_link *head, cl_link *link)
{
    assert(!cl_linked(link));
    link->next = head;
    link->previous = head->previous;
    head->previous->next = link;
    head->previous = link;
}

static inline void cl_list_remove(cl_link *link)
{
    if (!cl_linked(link))
        return;
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link->next = NULL;
    link->previous = NULL;
}

/* Move link from wherever it is to the front of a list. */
static inline void cl_list_push_front(cl_link *head, cl_link *link)
{
    cl_list_remove(link);
    link->next = head->next;
    link->previous = head;
    head->next->previous = link;
    head->next = link;
}

static inline cl_link *cl_list_pop(cl_link *head)
{
    if (cl_list_empty(head))
        return NULL;
    cl_link *link = head->next;
    cl_list_remove(link);
    return link;
}

#define CL_ITEM(link, type, member) ((type *)(void *)((char *)(link) - offsetof(type, member)))

#endif
