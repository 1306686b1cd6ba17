"""What the filter of next-token reasoning keeps of which documents, beside the documents that matter."""
