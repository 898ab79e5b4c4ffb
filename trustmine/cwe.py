"""The top-level class of a weakness: the pillar of CWE's research view that it belongs to.

https://cwe.mitre.org/data/definitions/1000.html, by primary parents, CWE 4.14; the weaknesses that code in C and C++ is
blamed for. Copyright of CWE: The MITRE Corporation, https://cwe.mitre.org/about/termsofuse.html.
"""

from collections.abc import Mapping

_PILLARS: Mapping[int, tuple[str, str]] = {
    284: (
        "Improper Access Control",
        "202 250 256 259 260 261 266 267 268 269 270 271 272 276 277 278 279 281 282 283 284 285 286 287 288 289 "
        "290 291 294 295 296 297 298 299 300 302 303 304 305 306 307 308 321 322 350 370 419 420 421 425 521 522 "
        "523 603 620 639 640 645 648 708 732 749 766 782 798 804 836 842 862 863 923 925 926 927 939 940 941 942 "
        "1220 1230 1275 1391 1392",
    ),
    435: (
        "Improper Interaction Between Multiple Correctly-Behaving Entities",
        "115 435 436 439 444 733 1037 1038",
    ),
    664: (
        "Improper Control of a Resource Through its Lifetime",
        "22 23 30 35 36 59 61 67 73 98 114 118 119 120 121 122 123 124 125 126 127 134 178 192 194 195 196 197 "
        "200 201 203 204 205 208 209 212 214 226 243 244 324 359 372 374 375 377 378 379 384 385 386 400 401 402 "
        "403 404 405 406 407 409 410 412 413 414 415 416 426 427 428 433 434 441 453 454 456 457 459 460 466 470 "
        "471 472 488 497 501 502 524 532 538 540 543 552 567 588 590 591 601 607 609 610 611 619 642 662 663 664 "
        "665 666 667 668 669 672 673 681 704 706 761 762 763 764 765 767 770 771 772 773 774 775 778 779 786 787 "
        "788 789 805 806 820 821 822 823 824 825 826 827 829 830 832 833 843 908 909 910 911 913 915 918 920 921 "
        "922 1021 1188 1321 1325 1333 1389",
    ),
    682: (
        "Incorrect Calculation",
        "128 131 135 190 191 193 369 467 468 469 680 682 1335 1339",
    ),
    691: (
        "Insufficient Control Flow Management",
        "179 180 248 362 363 364 366 367 368 395 396 397 408 430 431 432 455 479 480 481 482 483 600 617 670 674 "
        "691 696 698 705 768 776 783 799 828 831 834 835 837 841 1190",
    ),
    693: (
        "Protection Mechanism Failure",
        "184 311 312 313 316 319 323 326 327 328 329 330 331 332 333 334 335 336 337 338 339 340 341 342 343 344 "
        "345 346 347 348 349 351 352 353 354 450 526 602 649 692 693 757 759 760 780 807 916 924 1039 1204 1240 "
        "1241",
    ),
    697: (
        "Incorrect Comparison",
        "185 187 478 595 597 697 839 1023 1025 1077",
    ),
    703: (
        "Improper Check or Handling of Exceptional Conditions",
        "252 273 274 280 390 391 392 394 703 754 755 756",
    ),
    707: (
        "Improper Neutralization",
        "20 74 75 76 77 78 79 88 89 91 93 94 95 113 116 117 129 130 138 140 142 150 158 159 166 167 168 170 172 "
        "176 177 228 229 230 233 234 235 236 237 240 241 462 463 464 606 641 643 644 694 707 781 790 791 838 914 "
        "917 943 1284 1285 1286 1287 1288 1289 1336",
    ),
    710: (
        "Improper Adherence to Coding Standards",
        "188 198 242 253 325 358 393 424 440 446 447 448 449 451 474 475 476 477 484 489 506 546 547 561 562 563 "
        "570 571 573 587 605 628 636 638 653 654 657 671 675 676 683 684 685 686 687 688 695 710 758 785 912 1055 "
        "1341",
    ),
}
_PILLAR_OF = {int(cwe): pillar for pillar, (_, members) in _PILLARS.items() for cwe in members.split()}


def top_class(cwe: str) -> tuple[str, str]:
    """(identifier, name) of the pillar of "CWE-787": ("CWE-664", "Improper Control of a Resource ...").

    Two empty strings for what is no CWE, or not in the table: categories, views, and what is new.
    """
    digits = cwe.removeprefix("CWE-")
    pillar = _PILLAR_OF.get(int(digits)) if digits.isascii() and digits.isdigit() else None
    return (f"CWE-{pillar}", _PILLARS[pillar][0]) if pillar is not None else ("", "")
