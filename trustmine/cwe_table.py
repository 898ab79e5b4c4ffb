"""Names and parents of weaknesses; read by trustmine.cwe.

Generated from MITRE's catalogue CWE 4.14 of 2024-02-29 by .ci/cwe_table.py; not edited by hand. One weakness a line:
number, its parents in the view Research Concepts (the primary one first; - for none), its name.

CWE is Copyright (c) 2006-2024, The MITRE Corporation. MITRE hereby grants you a non-exclusive, royalty-free license
to use CWE for research, development, and commercial purposes. Any copy you make for such purposes is authorized on the
condition that you reproduce MITRE's copyright designation and this license in any such copy.
https://cwe.mitre.org/about/termsofuse.html
"""
# ruff: noqa: E501

TABLE = """\
14 733 Compiler Removal of Code to Clear Buffers
16 - Configuration
20 707 Improper Input Validation
22 706,668 Improper Limitation of a Pathname to a Restricted Directory ('Path Traversal')
59 706 Improper Link Resolution Before File Access ('Link Following')
74 707 Improper Neutralization of Special Elements in Output Used by a Downstream Component ('Injection')
77 74 Improper Neutralization of Special Elements used in a Command ('Command Injection')
78 77 Improper Neutralization of Special Elements used in an OS Command ('OS Command Injection')
79 74 Improper Neutralization of Input During Web Page Generation ('Cross-site Scripting')
88 77 Improper Neutralization of Argument Delimiters in a Command ('Argument Injection')
89 943 Improper Neutralization of Special Elements used in an SQL Command ('SQL Injection')
91 74 XML Injection (aka Blind XPath Injection)
93 74 Improper Neutralization of CRLF Sequences ('CRLF Injection')
94 74,913 Improper Control of Generation of Code ('Code Injection')
99 74 Improper Control of Resource Identifiers ('Resource Injection')
113 93,436 Improper Neutralization of CRLF Sequences in HTTP Headers ('HTTP Request/Response Splitting')
116 707 Improper Encoding or Escaping of Output
118 664 Incorrect Access of Indexable Resource ('Range Error')
119 118 Improper Restriction of Operations within the Bounds of a Memory Buffer
120 119 Buffer Copy without Checking Size of Input ('Classic Buffer Overflow')
121 788,787 Stack-based Buffer Overflow
122 788,787 Heap-based Buffer Overflow
123 787 Write-what-where Condition
124 786,787 Buffer Underwrite ('Buffer Underflow')
125 119 Out-of-bounds Read
126 788,125 Buffer Over-read
127 786,125 Buffer Under-read
128 682 Wrap-around Error
129 1285 Improper Validation of Array Index
130 240 Improper Handling of Length Parameter Inconsistency
131 682 Incorrect Calculation of Buffer Size
134 668 Use of Externally-Controlled Format String
135 682 Incorrect Calculation of Multi-Byte String Length
138 707 Improper Neutralization of Special Elements
170 707 Improper Null Termination
178 706 Improper Handling of Case Sensitivity
188 1105,435 Reliance on Data/Memory Layout
189 - Numeric Errors
190 682 Integer Overflow or Wraparound
191 682 Integer Underflow (Wrap or Wraparound)
192 681 Integer Coercion Error
193 682 Off-by-one Error
194 681 Unexpected Sign Extension
195 681 Signed to Unsigned Conversion Error
196 681 Unsigned to Signed Conversion Error
197 681 Numeric Truncation Error
200 668 Exposure of Sensitive Information to an Unauthorized Actor
201 200 Insertion of Sensitive Information Into Sent Data
203 200 Observable Discrepancy
209 200,755 Generation of Error Message Containing Sensitive Information
212 669 Improper Removal of Sensitive Information Before Storage or Transfer
221 664 Information Loss or Omission
226 459,212 Sensitive Information in Resource Not Removed Before Reuse
228 707,703 Improper Handling of Syntactically Invalid Structure
237 228 Improper Handling of Structural Elements
240 237,707 Improper Handling of Inconsistent Structural Elements
242 1177 Use of Inherently Dangerous Function
243 669,573 Creation of chroot Jail Without Changing Working Directory
244 226 Improper Clearing of Heap Memory Before Release ('Heap Inspection')
248 705,755 Uncaught Exception
252 754 Unchecked Return Value
253 573,754 Incorrect Check of Function Return Value
255 - Credentials Management Errors
264 - Permissions, Privileges, and Access Controls
269 284 Improper Privilege Management
271 269 Privilege Dropping / Lowering Errors
273 754,271 Improper Check for Dropped Privileges
276 732 Incorrect Default Permissions
281 732 Improper Preservation of Permissions
284 - Improper Access Control
285 284 Improper Authorization
287 284 Improper Authentication
288 306 Authentication Bypass Using an Alternate Path or Channel
290 1390 Authentication Bypass by Spoofing
294 1390 Authentication Bypass by Capture-replay
295 287 Improper Certificate Validation
297 923,295 Improper Validation of Certificate with Host Mismatch
305 1390 Authentication Bypass by Primary Weakness
306 287 Missing Authentication for Critical Function
307 1390,799 Improper Restriction of Excessive Authentication Attempts
310 - Cryptographic Issues
311 693 Missing Encryption of Sensitive Data
312 311,922 Cleartext Storage of Sensitive Information
319 311 Cleartext Transmission of Sensitive Information
326 693 Inadequate Encryption Strength
327 693 Use of a Broken or Risky Cryptographic Algorithm
328 327,326 Use of Weak Hash
330 693 Use of Insufficiently Random Values
331 330 Insufficient Entropy
335 330 Incorrect Usage of Seeds in Pseudo-Random Number Generator (PRNG)
338 330 Use of Cryptographically Weak Pseudo-Random Number Generator (PRNG)
344 330 Use of Invariant Value in Dynamically Changing Context
345 693 Insufficient Verification of Data Authenticity
346 345,284 Origin Validation Error
347 345 Improper Verification of Cryptographic Signature
352 345 Cross-Site Request Forgery (CSRF)
354 345,754 Improper Validation of Integrity Check Value
362 691 Concurrent Execution using Shared Resource with Improper Synchronization ('Race Condition')
364 362 Signal Handler Race Condition
366 362 Race Condition within a Thread
367 362 Time-of-check Time-of-use (TOCTOU) Race Condition
369 682 Divide By Zero
374 668 Passing Mutable Objects to an Untrusted Method
375 668 Returning a Mutable Object to an Untrusted Caller
377 668 Insecure Temporary File
384 610 Session Fixation
396 705,755,221 Declaration of Catch for Generic Exception
397 705,221,703 Declaration of Throws for Generic Exception
399 - Resource Management Errors
400 664 Uncontrolled Resource Consumption
401 772 Missing Release of Memory after Effective Lifetime
404 664 Improper Resource Shutdown or Release
405 400 Asymmetric Resource Consumption (Amplification)
407 405 Inefficient Algorithmic Complexity
415 825,1341,666 Double Free
416 825 Use After Free
424 638,693 Improper Protection of Alternate Path
425 862,288,424 Direct Request ('Forced Browsing')
426 642,673 Untrusted Search Path
427 668 Uncontrolled Search Path Element
428 668 Unquoted Search Path or Element
434 669 Unrestricted Upload of File with Dangerous Type
435 - Improper Interaction Between Multiple Correctly-Behaving Entities
436 435 Interpretation Conflict
441 610 Unintended Proxy or Intermediary ('Confused Deputy')
444 436 Inconsistent Interpretation of HTTP Requests ('HTTP Request/Response Smuggling')
451 684,221 User Interface (UI) Misrepresentation of Critical Information
457 908 Use of Uninitialized Variable
459 404 Incomplete Cleanup
460 459,755 Improper Cleanup on Thrown Exception
462 694 Duplicate Key in Associative List (Alist)
463 707 Deletion of Data Structure Sentinel
464 138 Addition of Data Structure Sentinel
466 119 Return of Pointer Value Outside of Expected Range
467 131 Use of sizeof() on a Pointer Type
468 682 Incorrect Pointer Scaling
469 682 Use of Pointer Subtraction to Determine Size
470 913,610 Use of Externally-Controlled Input to Select Classes or Code ('Unsafe Reflection')
474 758 Use of Function with Inconsistent Implementations
476 710,754 NULL Pointer Dereference
478 1023 Missing Default Case in Multiple Condition Expression
479 828,663 Signal Handler Use of a Non-reentrant Function
480 670 Use of Incorrect Operator
481 480 Assigning instead of Comparing
482 480 Comparing instead of Assigning
483 670 Incorrect Block Delimitation
484 710,670 Omitted Break Statement in Switch
493 668 Critical Public Variable Without Final Modifier
494 345,669 Download of Code Without Integrity Check
495 664 Private Data Structure Returned From A Public Method
496 664 Public Data Assigned to Private Array-Typed Field
498 668 Cloneable Class Containing Sensitive Information
500 493 Public Static Field Not Marked Final
502 913 Deserialization of Untrusted Data
521 1391 Weak Password Requirements
522 1390,668 Insufficiently Protected Credentials
532 538 Insertion of Sensitive Information into Log File
538 200 Insertion of Sensitive Information into Externally-Accessible File or Directory
543 820 Use of Singleton Pattern Without Synchronization in a Multithreaded Context
552 668,285 Files or Directories Accessible to External Parties
558 663 Use of getlogin() in Multithreaded Application
560 687 Use of umask() with chmod-style Argument
562 758 Return of Stack Variable Address
565 642,602 Reliance on Cookies without Validation and Integrity Checking
573 710 Improper Following of Specification by Caller
587 758,344 Assignment of a Fixed Address to a Pointer
590 762 Free of Memory not on the Heap
601 610 URL Redirection to Untrusted Site ('Open Redirect')
602 693 Client-Side Enforcement of Server-Side Security
610 664 Externally Controlled Reference to a Resource in Another Sphere
611 610 Improper Restriction of XML External Entity Reference
613 672 Insufficient Session Expiration
617 670 Reachable Assertion
628 573 Function Call with Incorrectly Specified Arguments
638 657,862 Not Using Complete Mediation
639 863 Authorization Bypass Through User-Controlled Key
640 1390 Weak Password Recovery Mechanism for Forgotten Password
642 668 External Control of Critical State Data
657 710 Violation of Secure Design Principles
662 664,691 Improper Synchronization
663 662 Use of a Non-reentrant Function in a Concurrent Context
664 - Improper Control of a Resource Through its Lifetime
665 664 Improper Initialization
666 664 Operation on Resource in Wrong Phase of Lifetime
667 662 Improper Locking
668 664 Exposure of Resource to Wrong Sphere
669 664 Incorrect Resource Transfer Between Spheres
670 691 Always-Incorrect Control Flow Implementation
671 657 Lack of Administrator Control over Security
672 666 Operation on a Resource after Expiration or Release
673 664 External Influence of Sphere Definition
674 834 Uncontrolled Recursion
675 573 Multiple Operations on Resource in Single-Operation Context
676 1177 Use of Potentially Dangerous Function
681 704 Incorrect Conversion between Numeric Types
682 - Incorrect Calculation
684 710 Incorrect Provision of Specified Functionality
685 628 Function Call With Incorrect Number of Arguments
687 628 Function Call With Incorrectly Specified Argument Value
688 628 Function Call With Incorrect Variable or Reference as Argument
689 362 Permission Race Condition During Resource Copy
690 252 Unchecked Return Value to NULL Pointer Dereference
691 - Insufficient Control Flow Management
693 - Protection Mechanism Failure
694 99,573 Use of Multiple Resources with Duplicate Identifier
697 - Incorrect Comparison
703 - Improper Check or Handling of Exceptional Conditions
704 664 Incorrect Type Conversion or Cast
705 691 Incorrect Control Flow Scoping
706 664 Use of Incorrectly-Resolved Name or Reference
707 - Improper Neutralization
710 - Improper Adherence to Coding Standards
732 285,668 Incorrect Permission Assignment for Critical Resource
733 1038 Compiler Optimization Removal or Modification of Security-critical Code
749 284 Exposed Dangerous Method or Function
754 703 Improper Check for Unusual or Exceptional Conditions
755 703 Improper Handling of Exceptional Conditions
758 710 Reliance on Undefined, Unspecified, or Implementation-Defined Behavior
761 763 Free of Pointer not at Start of Buffer
762 763 Mismatched Memory Management Routines
763 404 Release of Invalid Pointer or Reference
766 732,1061 Critical Data Element Declared Public
767 668 Access to Critical Private Variable via Public Method
770 400,665 Allocation of Resources Without Limits or Throttling
772 404 Missing Release of Resource after Effective Lifetime
775 772 Missing Release of File Descriptor or Handle after Effective Lifetime
776 674,405 Improper Restriction of Recursive Entity References in DTDs ('XML Entity Expansion')
781 1285 Improper Address Validation in IOCTL with METHOD_NEITHER I/O Control Code
782 749 Exposed IOCTL with Insufficient Access Control
783 670 Operator Precedence Logic Error
785 676,120 Use of Path Manipulation Function without Maximum-sized Buffer
786 119 Access of Memory Location Before Start of Buffer
787 119 Out-of-bounds Write
788 119 Access of Memory Location After End of Buffer
789 770 Memory Allocation with Excessive Size Value
798 1391,344,671 Use of Hard-coded Credentials
799 691 Improper Control of Interaction Frequency
805 119 Buffer Access with Incorrect Length Value
806 805 Buffer Access Using Size of Source Buffer
820 662 Missing Synchronization
822 119 Untrusted Pointer Dereference
823 119 Use of Out-of-range Pointer Offset
824 119 Access of Uninitialized Pointer
825 119,672 Expired Pointer Dereference
828 364 Signal Handler with Functionality that is not Asynchronous-Safe
829 669 Inclusion of Functionality from Untrusted Control Sphere
833 667 Deadlock
834 691 Excessive Iteration
835 834 Loop with Unreachable Exit Condition ('Infinite Loop')
838 116 Inappropriate Encoding for Output Context
839 1023 Numeric Range Comparison Without Minimum Check
843 704 Access of Resource Using Incompatible Type ('Type Confusion')
862 285 Missing Authorization
863 285 Incorrect Authorization
908 665 Use of Uninitialized Resource
909 665 Missing Initialization of Resource
910 672 Use of Expired File Descriptor
911 664 Improper Update of Reference Count
913 664 Improper Control of Dynamically-Managed Code Resources
915 913 Improperly Controlled Modification of Dynamically-Determined Object Attributes
916 328 Use of Password Hash With Insufficient Computational Effort
917 77 Improper Neutralization of Special Elements used in an Expression Language Statement ('Expression Language Injection')
918 441 Server-Side Request Forgery (SSRF)
920 400 Improper Restriction of Power Consumption
922 664 Insecure Storage of Sensitive Information
923 284 Improper Restriction of Communication Channel to Intended Endpoints
924 345 Improper Enforcement of Message Integrity During Transmission in a Communication Channel
943 74 Improper Neutralization of Special Elements in Data Query Logic
1021 441,451 Improper Restriction of Rendered UI Layers or Frames
1023 697 Incomplete Comparison with Missing Factors
1038 435,758 Insecure Automated Optimizations
1061 710 Insufficient Encapsulation
1105 758,1061 Insufficient Encapsulation of Machine-Dependent Functionality
1177 710 Use of Prohibited Code
1188 1419 Initialization of a Resource with an Insecure Default
1236 74 Improper Neutralization of Formula Elements in a CSV File
1284 20 Improper Validation of Specified Quantity in Input
1285 20 Improper Validation of Specified Index, Position, or Offset in Input
1321 915 Improperly Controlled Modification of Object Prototype Attributes ('Prototype Pollution')
1325 770 Improperly Controlled Sequential Memory Allocation
1333 407 Inefficient Regular Expression Complexity
1335 682 Incorrect Bitwise Shift of Integer
1341 675 Multiple Releases of Same Resource or Handle
1390 287 Weak Authentication
1391 1390 Use of Weak Credentials
1419 665 Incorrect Initialization of Resource
"""
