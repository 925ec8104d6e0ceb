"""How parent, zygote and children communicate: frames, their framing, the shared page, large objects in memory files.

Modules:

    blobs             Large bodies and values on the parent's side
    codec             Values ⇄ bytes, in the JSON dialect of Celery clients
    descriptors       Standard descriptors (0 to 2), which some schedulers and daemons close in what they start (`<&-
                      >&- 2>&-`)
    envelope          A message as the children of another library's app get it: whole, with the properties as they came
    frames            The frames between parent, zygote and children
    framing           How messages of frames cross a socket
    large_objects     Large values
    shared_folders    The parent's folders of modules (`sys.path`), in memory that the zygote and all children share
                      with it
    shared_page       A page that parent and child share, and that survives the child
    transport         One end of a socket that carries whole messages, read and written by the event loop without ever
                      blocking it
"""
