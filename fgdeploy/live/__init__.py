"""What the camera and the service share: frames that come whether or not anyone is ready."""
